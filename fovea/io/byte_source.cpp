#include "fovea/io/byte_source.h"

#include <algorithm>

#include "fovea/core/error.h"

namespace fovea::io {

namespace {
constexpr size_t kPiece = size_t{1} << 16;
// RFC 1951: a match of 258 bytes costs at least 2 bits.
constexpr uint64_t kMostGrowth = 1032;
}  // namespace

void ByteSource::read_exactly(std::span<std::byte> to, const std::string& what) {
  const uint64_t start = position_;
  const size_t n = read_some(to);
  if (n != to.size())
    throw IoError(path(), what + " needs " + std::to_string(to.size()) + " bytes from byte " + std::to_string(start) +
                              " on, found " + std::to_string(n) + "; the file is truncated");
}

std::vector<std::byte> ByteSource::read_block(uint64_t bytes, const std::string& what) {
  const uint64_t start = position_;
  const auto truncated = [&](uint64_t present, const char* bound) {
    return IoError(path(), what + " need " + std::to_string(bytes) + " bytes from byte " + std::to_string(start) +
                               " on, found " + bound + std::to_string(present) + "; the file is truncated");
  };
  if (bytes > at_most()) throw truncated(at_most(), "at most ");
  std::vector<std::byte> block(std::min(bytes, std::max<uint64_t>(likely(), kPiece)));
  for (size_t done = 0;;) {
    done += read_some(std::span(block).subspan(done));
    if (done < block.size()) throw truncated(done, "");
    if (done == bytes) return block;
    block.reserve(std::min<uint64_t>(bytes, 2 * done));
    block.resize(block.capacity());
  }
}

uint64_t ByteSource::drain(uint64_t limit) {
  std::vector<std::byte> piece(std::min<uint64_t>(kPiece, at_most() + 1));
  uint64_t total = 0;
  while (const size_t n = read_some(piece)) {
    total += n;
    if (total > limit)
      throw IoError(path(),
                    "more than " + std::to_string(limit) + " bytes follow the voxels; is the header of another file?");
  }
  return total;
}

size_t RawSource::read_some(std::span<std::byte> to) {
  const size_t n = file_.read_some_at(offset_, to);
  offset_ += n, position_ += n;
  return n;
}

// At least the two bytes that next_member() looks at.
GzipSource::GzipSource(const InputFile& file, uint64_t offset)
    : file_(file), offset_(offset), input_(std::clamp<uint64_t>(file.size() - std::min(offset, file.size()), 2, kPiece)) {
  // + 16: gzip header and trailer, both checked.
  FOVEA_CHECK(inflateInit2(&stream_, 15 + 16) == Z_OK, "zlib refuses to start");
}

GzipSource::~GzipSource() { inflateEnd(&stream_); }

void GzipSource::refill() {
  const size_t n = file_.read_some_at(offset_, std::as_writable_bytes(std::span(input_)));
  offset_ += n;
  stream_.next_in = input_.data(), stream_.avail_in = unsigned(n);
}

// After a member's end: another member follows (files made by bgzip or by concatenation), or the file is over.
bool GzipSource::next_member() {
  if (stream_.avail_in < 2) {
    offset_ -= stream_.avail_in;
    refill();
  }
  if (stream_.avail_in >= 2 && stream_.next_in[0] == 0x1f && stream_.next_in[1] == 0x8b)
    return inflateReset(&stream_) == Z_OK;
  garbage_ = stream_.avail_in + (file_.size() - offset_);
  return false;
}

size_t GzipSource::read_some(std::span<std::byte> to) {
  size_t done = 0;
  while (done < to.size() && !ended_) {
    if (stream_.avail_in == 0) refill();
    if (stream_.avail_in == 0)
      throw IoError(path(), "the gzip stream stops at byte " + std::to_string(offset_) +
                                " before its end; the file is truncated");
    const size_t ask = std::min(to.size() - done, size_t{1} << 30);
    stream_.next_out = reinterpret_cast<unsigned char*>(to.data()) + done, stream_.avail_out = unsigned(ask);
    const int state = inflate(&stream_, Z_NO_FLUSH);
    done += ask - stream_.avail_out;
    if (state == Z_STREAM_END) {
      ended_ = !next_member();
    } else if (state != Z_OK && state != Z_BUF_ERROR) {
      throw IoError(path(), "damaged gzip stream near byte " + std::to_string(offset_ - stream_.avail_in) + ": " +
                                (stream_.msg ? stream_.msg : "unexpected content"));
    }
  }
  position_ += done;
  return done;
}

uint64_t GzipSource::at_most() const {
  if (ended_) return 0;
  const uint64_t packed = stream_.avail_in + (file_.size() - offset_);
  return (packed + 64) * kMostGrowth;  // 64: what inflate holds inside
}

uint64_t GzipSource::likely() const { return ended_ ? 0 : 4 * (stream_.avail_in + (file_.size() - offset_)); }

GzipWriter::GzipWriter(AtomicFile& file, int level) : file_(file), output_(kPiece) {
  FOVEA_CHECK(level >= 1 && level <= 9, "gzip level " + std::to_string(level));
  FOVEA_CHECK(deflateInit2(&stream_, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK,
              "zlib refuses to start");
}

GzipWriter::~GzipWriter() { deflateEnd(&stream_); }

void GzipWriter::deflate_with(int flush) {
  do {
    stream_.next_out = output_.data(), stream_.avail_out = unsigned(output_.size());
    FOVEA_CHECK(deflate(&stream_, flush) != Z_STREAM_ERROR, "zlib stream is inconsistent");
    file_.write(output_.data(), output_.size() - stream_.avail_out);
  } while (stream_.avail_out == 0);
}

void GzipWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t n = std::min(bytes.size(), size_t{1} << 30);
    stream_.next_in = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data())),
    stream_.avail_in = unsigned(n);
    deflate_with(Z_NO_FLUSH);
    bytes = bytes.subspan(n);
  }
}

void GzipWriter::finish() { deflate_with(Z_FINISH); }

}  // namespace fovea::io
