#pragma once
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fovea/io/atomic_file.h"
#include "fovea/io/input_file.h"

namespace fovea::io {

/// Bytes in the order of a file, plain or inflated.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Fills `to` as far as bytes last; less than asked only at the end. Errors: IoError for a damaged gzip stream.
  virtual size_t read_some(std::span<std::byte> to) = 0;
  /// No more than this many bytes can follow (a gzip stream grows at most 1032-fold): what makes a lying header cheap
  /// to refuse.
  virtual uint64_t at_most() const = 0;
  /// A fair first guess of how many bytes follow, for reserving memory.
  virtual uint64_t likely() const = 0;
  virtual const std::filesystem::path& path() const = 0;

  /// Fills `to` or throws IoError naming `what` as truncated.
  void read_exactly(std::span<std::byte> to, const std::string& what);
  /// `bytes` bytes in memory that grows with the bytes that are there, not with those that were promised.
  std::vector<std::byte> read_block(uint64_t bytes, const std::string& what);
  /// Reads to the end, which verifies the checksum of a gzip stream; returns how many bytes there were. Throws IoError
  /// when there are more than `limit`: a small image must not unpack to an endless tail.
  uint64_t drain(uint64_t limit);

 protected:
  uint64_t position_ = 0;
};

/// A file as it is, from byte `offset` on.
class RawSource : public ByteSource {
 public:
  explicit RawSource(const InputFile& file, uint64_t offset = 0) : file_(file), offset_(offset) {}
  size_t read_some(std::span<std::byte> to) override;
  uint64_t at_most() const override { return file_.size() > offset_ ? file_.size() - offset_ : 0; }
  uint64_t likely() const override { return at_most(); }
  const std::filesystem::path& path() const override { return file_.path(); }

 private:
  const InputFile& file_;
  uint64_t offset_;
};

/// One or more gzip members (RFC 1952) that start at byte `offset` of a file. Checksum and length of each are verified.
class GzipSource : public ByteSource {
 public:
  explicit GzipSource(const InputFile& file, uint64_t offset = 0);
  ~GzipSource() override;
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;
  size_t read_some(std::span<std::byte> to) override;
  uint64_t at_most() const override;
  uint64_t likely() const override;
  const std::filesystem::path& path() const override { return file_.path(); }
  /// Bytes after the last member that are no gzip member; known once the end was reached.
  uint64_t garbage() const { return garbage_; }

 private:
  void refill();
  bool next_member();

  const InputFile& file_;
  uint64_t offset_;  // of the next byte to take from the file
  z_stream stream_{};
  std::vector<unsigned char> input_;
  bool ended_ = false;
  uint64_t garbage_ = 0;
};

/// Deflates into an AtomicFile as one gzip member without time stamp and file name: equal bytes give equal files.
class GzipWriter {
 public:
  /// level 1 (fast) to 9 (small).
  GzipWriter(AtomicFile& file, int level);
  ~GzipWriter();
  GzipWriter(const GzipWriter&) = delete;
  GzipWriter& operator=(const GzipWriter&) = delete;
  void write(std::span<const std::byte> bytes);
  /// Writes the end of the stream; call once, last.
  void finish();

 private:
  void deflate_with(int flush);

  AtomicFile& file_;
  z_stream stream_{};
  std::vector<unsigned char> output_;
};

}  // namespace fovea::io
