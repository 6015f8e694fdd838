#include "fovea/train/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "fovea/core/error.h"

namespace fovea::train {

namespace fs = std::filesystem;

namespace {

// Field numbers of tensorflow/core/util/event.proto and framework/summary.proto.
enum EventField { kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7 };
enum SummaryField { kValue = 1 };
enum ValueField { kTag = 1, kSimpleValue = 2, kImage = 4 };
enum ImageField { kHeight = 1, kWidth = 2, kColorspace = 3, kEncodedImage = 4 };
enum SessionLogField { kStatus = 1 };
constexpr uint64_t kSessionStart = 1;

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
  out += char(value);
}
void put_integer(std::string& out, int field, uint64_t value) {
  put_varint(out, uint64_t(field) << 3);  // wire type 0
  put_varint(out, value);
}
template <class T>
void put_little_endian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof value; ++i) out += char(value >> (8 * i));
}
void put_double(std::string& out, int field, double value) {
  put_varint(out, uint64_t(field) << 3 | 1);
  put_little_endian(out, std::bit_cast<uint64_t>(value));
}
void put_float(std::string& out, int field, float value) {
  put_varint(out, uint64_t(field) << 3 | 5);
  put_little_endian(out, std::bit_cast<uint32_t>(value));
}
void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_varint(out, uint64_t(field) << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

double wall_time_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// The checksum of the record format: rotated and offset, because a CRC of data that holds CRCs is weak.
uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

constexpr std::string_view kPrefix = "events.out.tfevents.";

/// TensorBoard reads the files of a folder in the order of their names: seconds since 1970, later than any file there
/// is.
int64_t next_number(const fs::path& folder) {
  int64_t number = int64_t(wall_time_s());
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix)) number = std::max<int64_t>(number, std::atoll(name.c_str() + kPrefix.size()) + 1);
  }
  return number;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = table[(crc ^ uint8_t(byte)) & 0xff] ^ crc >> 8;
  return ~crc;
}

EventFile::EventFile(const fs::path& folder, int64_t first_step) {
  if (!fs::is_directory(folder)) throw IoError(folder, "is no folder; TensorBoard events are written into one");
  path_ = folder / (std::string(kPrefix) + std::to_string(next_number(folder)) + ".fovea");
  const int descriptor = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) throw IoError(path_, std::string("cannot create: ") + std::strerror(errno));
  file_ = ::fdopen(descriptor, "wb");
  FOVEA_CHECK(file_ != nullptr, "fdopen failed");
  std::string version;
  put_bytes(version, kFileVersion, "brain.Event:2");
  add_event(version);
  if (first_step > 0) {
    std::string log, event;
    put_integer(log, kStatus, kSessionStart);
    put_integer(event, kStep, uint64_t(first_step));
    put_bytes(event, kSessionLog, log);
    add_event(event);
  }
  flush();
}

EventFile::~EventFile() {
  if (file_) std::fclose(file_);
}

void EventFile::add_scalar(std::string_view tag, int64_t step, double value) {
  std::string item, summary, event;
  put_bytes(item, kTag, tag);
  put_float(item, kSimpleValue, static_cast<float>(value));
  put_bytes(summary, kValue, item);
  put_integer(event, kStep, uint64_t(step));
  put_bytes(event, kSummary, summary);
  add_event(event);
}

void EventFile::add_png(std::string_view tag, int64_t step, std::span<const std::byte> png, int height, int width,
                        int channels) {
  std::string image, item, summary, event;
  put_integer(image, kHeight, uint64_t(height));
  put_integer(image, kWidth, uint64_t(width));
  put_integer(image, kColorspace, uint64_t(channels));
  put_bytes(image, kEncodedImage, {reinterpret_cast<const char*>(png.data()), png.size()});
  put_bytes(item, kTag, tag);
  put_bytes(item, kImage, image);
  put_bytes(summary, kValue, item);
  put_integer(event, kStep, uint64_t(step));
  put_bytes(event, kSummary, summary);
  add_event(event);
}

void EventFile::add_event(std::string_view fields) {
  std::string event;
  put_double(event, kWallTime, wall_time_s());
  event += fields;
  write_record(event);
}

void EventFile::write_record(const std::string& record) {
  std::string frame;
  put_little_endian(frame, uint64_t(record.size()));
  put_little_endian(frame, masked_crc(frame));
  frame += record;
  put_little_endian(frame, masked_crc(record));
  if (std::fwrite(frame.data(), 1, frame.size(), file_) != frame.size()) flush();
}

void EventFile::flush() {
  if (std::fflush(file_) != 0 || std::ferror(file_)) {
    throw ResourceError(path_.string() + ": cannot write: " + std::strerror(errno) + "; make room and resume the run");
  }
}

}  // namespace fovea::train
