#pragma once
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/io/byte_source.h"

namespace fovea::io {

/// Whether a reader only writes, or also answers requests.
enum class ReaderTalk { kOutputOnly, kRequests };

/// The bytes that a process of its own decodes from a file whose format a foreign library reads: damage there ends that
/// process, not this one. The program fovea_reader is looked for beside the running program, or where the environment
/// variable FOVEA_READER says.
/// Errors   IoError with the reader's own line, or that it was ended by a signal; once its output has been read to the end.
class ReaderProcess : public ByteSource {
 public:
  /// path: the file in question, for messages. arguments: of fovea_reader.
  ReaderProcess(const std::filesystem::path& path, const std::vector<std::string>& arguments, ReaderTalk talk = ReaderTalk::kOutputOnly);
  ~ReaderProcess() override;
  ReaderProcess(const ReaderProcess&) = delete;
  ReaderProcess& operator=(const ReaderProcess&) = delete;

  /// The first line of the output, at most `max_bytes` long.
  std::string read_line(size_t max_bytes);
  /// Sends text to the reader's input. Errors: IoError as above when it has ended.
  void request(std::string_view text);
  /// How many bytes the line has promised.
  void expect(uint64_t bytes) { expected_ = bytes; }

  size_t read_some(std::span<std::byte> to) override;
  uint64_t at_most() const override { return expected_; }
  uint64_t likely() const override { return expected_; }
  const std::filesystem::path& path() const override { return path_; }

 private:
  void finish();

  std::filesystem::path path_;
  pid_t process_ = -1;
  int input_ = -1, output_ = -1, errors_ = -1;
  uint64_t expected_ = 0;
};

}  // namespace fovea::io
