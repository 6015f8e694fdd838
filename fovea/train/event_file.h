#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace fovea::train {

/// CRC-32C (Castagnoli) of bytes.
uint32_t crc32c(std::string_view bytes);

/// A TensorBoard event file: scalars and PNG images. The protobuf messages are encoded by hand, because libtorch
/// carries a protobuf of its own and two in one process clash. Every EventFile is a new file `events.out.tfevents.*` in
/// its folder, named so that TensorBoard reads it after the older ones. A resumed run passes the first step that it
/// will write: TensorBoard then drops what older files hold from that step on. Records reach the file at flush(); a
/// record cut by a crash is skipped by TensorBoard. Errors   IoError when the file cannot be made, ResourceError when
/// it cannot be written.
class EventFile {
 public:
  explicit EventFile(const std::filesystem::path& folder, int64_t first_step = 0);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void add_scalar(std::string_view tag, int64_t step, double value);
  void add_png(std::string_view tag, int64_t step, std::span<const std::byte> png, int height, int width, int channels);
  void flush();

  const std::filesystem::path& path() const { return path_; }

 private:
  void add_event(std::string_view fields);
  void write_record(const std::string& record);

  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

}  // namespace fovea::train
