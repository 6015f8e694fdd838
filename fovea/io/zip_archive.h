#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "fovea/io/input_file.h"

namespace fovea::io {

/// Read access to the uncompressed entries of a zip file, zip64 included: what PyTorch writes. Nothing is extracted to
/// disk and names are only looked up, so a name like ../../x is just a name nobody asks for.
/// Errors   IoError: no or several central directories worth of nonsense, offsets outside the file, entries that
///          together claim more bytes than the file has, two entries of one name; on reading: compressed or encrypted
///          entries, a local header that disagrees, a wrong CRC-32.
/// Source   PKWARE APPNOTE.TXT 6.3.10, sections 4.3 to 4.5
class ZipArchive {
 public:
  explicit ZipArchive(const InputFile& file);

  bool contains(const std::string& name) const { return entries_.contains(name); }
  /// Bytes of an entry. Errors: IoError when there is none.
  uint64_t size(const std::string& name) const { return entry(name).size; }
  std::vector<std::string> names() const;
  /// Fills `to`, which must have size(name) bytes, and verifies the CRC.
  void read(const std::string& name, std::span<std::byte> to) const;

 private:
  struct Entry {
    uint64_t offset = 0, size = 0, packed_size = 0;
    uint32_t crc = 0;
    uint16_t method = 0, flags = 0;
  };
  const Entry& entry(const std::string& name) const;

  const InputFile& file_;
  std::map<std::string, Entry> entries_;
};

}  // namespace fovea::io
