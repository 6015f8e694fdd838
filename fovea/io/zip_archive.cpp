#include "fovea/io/zip_archive.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "fovea/core/error.h"

namespace fovea::io {

namespace {

constexpr uint32_t kEndMark = 0x06054b50, kEnd64Mark = 0x06064b50, kLocator64Mark = 0x07064b50,
                   kCentralMark = 0x02014b50, kLocalMark = 0x04034b50;
constexpr size_t kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20, kCentralBytes = 46, kLocalBytes = 30;
constexpr uint64_t kMaxDirectory = uint64_t{64} << 20;

template <class T>
T at(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);  // zip is little-endian, as every machine we run on
  return value;
}

std::vector<std::byte> piece(const InputFile& file, uint64_t offset, uint64_t bytes) {
  std::vector<std::byte> out(bytes);
  file.read_at(offset, out);
  return out;
}

struct Directory {
  uint64_t offset, size, entries;
};

Directory find_directory(const InputFile& file) {
  const auto bad = [&](const std::string& problem) {
    return IoError(file.path(), problem + "; the zip archive is truncated or damaged");
  };
  if (file.size() < kEndBytes) throw bad("has " + std::to_string(file.size()) + " bytes");
  // The end record is last, but for a comment of at most 65535 bytes whose length it states.
  const uint64_t tail_bytes = std::min<uint64_t>(file.size(), kEndBytes + 65535), tail_at = file.size() - tail_bytes;
  const auto tail = piece(file, tail_at, tail_bytes);
  size_t end = tail.size() - kEndBytes;
  while (at<uint32_t>(tail, end) != kEndMark || end + kEndBytes + at<uint16_t>(tail, end + 20) != tail.size()) {
    if (end == 0) throw bad("has no central directory at its end");
    --end;
  }
  Directory d{at<uint32_t>(tail, end + 16), at<uint32_t>(tail, end + 12), at<uint16_t>(tail, end + 10)};
  uint64_t directory_end = tail_at + end;

  if (end >= kLocator64Bytes && at<uint32_t>(tail, end - kLocator64Bytes) == kLocator64Mark) {
    const uint64_t end64 = at<uint64_t>(tail, end - kLocator64Bytes + 8);
    if (end64 > file.size() - kEnd64Bytes || file.size() < kEnd64Bytes)
      throw bad("its zip64 end record lies outside the file");
    const auto record = piece(file, end64, kEnd64Bytes);
    if (at<uint32_t>(record, 0) != kEnd64Mark) throw bad("its zip64 end record is missing");
    d = {at<uint64_t>(record, 48), at<uint64_t>(record, 40), at<uint64_t>(record, 32)};
    directory_end = end64;
  }
  if (d.offset > directory_end || d.size > directory_end - d.offset || d.size > kMaxDirectory)
    throw bad("its central directory lies outside the file");
  return d;
}

}  // namespace

ZipArchive::ZipArchive(const InputFile& file) : file_(file) {
  const Directory d = find_directory(file);
  const auto bytes = piece(file, d.offset, d.size);
  const auto bad = [&](const std::string& problem) {
    return IoError(file.path(), problem + "; the zip archive is damaged");
  };
  uint64_t total = 0;
  size_t here = 0;
  for (uint64_t n = 0; n < d.entries; ++n) {
    if (bytes.size() - here < kCentralBytes || at<uint32_t>(bytes, here) != kCentralMark)
      throw bad("entry " + std::to_string(n) + " of " + std::to_string(d.entries) +
                " is missing in the central directory");
    const auto record = std::span(bytes).subspan(here);
    const size_t name_bytes = at<uint16_t>(record, 28), extra_bytes = at<uint16_t>(record, 30),
                 comment_bytes = at<uint16_t>(record, 32);
    const size_t record_bytes = kCentralBytes + name_bytes + extra_bytes + comment_bytes;
    if (record.size() < record_bytes)
      throw bad("entry " + std::to_string(n) + " of the central directory is cut short");
    Entry e;
    e.flags = at<uint16_t>(record, 8), e.method = at<uint16_t>(record, 10), e.crc = at<uint32_t>(record, 16);
    e.packed_size = at<uint32_t>(record, 20), e.size = at<uint32_t>(record, 24), e.offset = at<uint32_t>(record, 42);
    // zip64: 8-byte values, in this order, for those fields that hold all ones.
    auto extra = record.subspan(kCentralBytes + name_bytes, extra_bytes);
    while (extra.size() >= 4) {
      const size_t length = at<uint16_t>(extra, 2);
      if (extra.size() < 4 + length) break;
      if (at<uint16_t>(extra, 0) == 1) {
        size_t from = 4;
        for (uint64_t* field : {&e.size, &e.packed_size, &e.offset}) {
          if (*field != 0xffffffff) continue;
          if (from + 8 > 4 + length) throw bad("entry " + std::to_string(n) + " lacks its zip64 sizes");
          *field = at<uint64_t>(extra, from), from += 8;
        }
      }
      extra = extra.subspan(4 + length);
    }
    if (e.offset > file.size() || e.packed_size > file.size() - e.offset ||
        __builtin_add_overflow(total, e.packed_size, &total) || total > file.size())
      throw bad("entry " + std::to_string(n) + " claims bytes that the file does not have");
    std::string name(reinterpret_cast<const char*>(record.data()) + kCentralBytes, name_bytes);
    if (!entries_.emplace(std::move(name), e).second)
      throw bad("entry " + std::to_string(n) + " has a name that is there twice");
    here += record_bytes;
  }
}

const ZipArchive::Entry& ZipArchive::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    throw IoError(file_.path(), "the zip archive has no entry \"" + name.substr(0, 80) + "\"");
  return found->second;
}

std::vector<std::string> ZipArchive::names() const {
  std::vector<std::string> out;
  for (const auto& item : entries_) out.push_back(item.first);
  return out;
}

void ZipArchive::read(const std::string& name, std::span<std::byte> to) const {
  const Entry& e = entry(name);
  const std::string what = "entry \"" + name.substr(0, 80) + "\" ";
  if (e.flags & 1) throw IoError(file_.path(), what + "is encrypted");
  if (e.method != 0 || e.packed_size != e.size)
    throw IoError(file_.path(), what + "is compressed (method " + std::to_string(e.method) +
                                    "), expected stored bytes as torch.save writes them");
  FOVEA_CHECK(to.size() == e.size, "buffer of another size than the zip entry");
  const auto local = piece(file_, e.offset, kLocalBytes);
  const size_t name_bytes = at<uint16_t>(local, 26), extra_bytes = at<uint16_t>(local, 28);
  if (at<uint32_t>(local, 0) != kLocalMark || name_bytes != name.size() || at<uint16_t>(local, 8) != e.method)
    throw IoError(file_.path(), what + "disagrees with its local header; the zip archive is damaged");
  const auto local_name = piece(file_, e.offset + kLocalBytes, name_bytes);
  if (std::memcmp(local_name.data(), name.data(), name_bytes) != 0)
    throw IoError(file_.path(), what + "has another name in its local header; the zip archive is damaged");
  file_.read_at(e.offset + kLocalBytes + name_bytes + extra_bytes, to);
  uLong crc = crc32_z(0, nullptr, 0);
  crc = crc32_z(crc, reinterpret_cast<const Bytef*>(to.data()), to.size());
  if (crc != e.crc) throw IoError(file_.path(), what + "has a wrong checksum (CRC-32); the file is damaged");
}

}  // namespace fovea::io
