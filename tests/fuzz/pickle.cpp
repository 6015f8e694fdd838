#include "fovea/io/pickle_machine.h"

#include <zlib.h>

#include "fovea/io/torch_pickle.h"
#include "fovea/io/zip_archive.h"
#include "tests/fuzz/target.h"

namespace {
using fovea::fuzz::Bytes;

// A zip archive of stored entries, checksums and all: what the mutated program needs around it in order to be read.
class ZipText {
 public:
  void add(const std::string& name, Bytes content) {
    const auto crc = uint32_t(crc32(0, reinterpret_cast<const unsigned char*>(content.data()), unsigned(content.size())));
    const std::string common = number(0x00'14, 2) + number(0, 2) + number(0, 2) + number(0, 4) + number(crc, 4) + number(content.size(), 4) + number(content.size(), 4) +
                               number(name.size(), 2) + number(0, 2);
    directory_ += "PK\1\2" + number(0x14, 2) + common + number(0, 2) + number(0, 2) + number(0, 2) + number(0, 4) + number(text_.size(), 4) + name;
    text_ += "PK\3\4" + common + name;
    text_.append(reinterpret_cast<const char*>(content.data()), content.size());
    ++entries_;
  }
  std::string finish() const {
    return text_ + directory_ + "PK\5\6" + number(0, 4) + number(entries_, 2) + number(entries_, 2) + number(directory_.size(), 4) + number(text_.size(), 4) + number(0, 2);
  }

 private:
  static std::string number(uint64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += char(value >> 8 * i);
    return text;
  }
  std::string text_, directory_;
  uint64_t entries_ = 0;
};
}  // namespace

// The program of a checkpoint: the machine alone, and the whole reader with the program in an archive with storages "0" of
// 64 bytes and "1" of 8.
FOVEA_FUZZ_TARGET(pickle) {
  using namespace fovea;
  static const std::filesystem::path name = "x.pt";
  fuzz::accepted([&] { io::PickleMachine(name, input).run(); });
  ZipText zip;
  const std::vector<std::byte> storage(64);
  zip.add("a/data.pkl", input), zip.add("a/data/0", storage), zip.add("a/data/1", Bytes(storage).first(8));
  const std::string archive = zip.finish();
  const io::InputFile file(name, std::as_bytes(std::span(archive)));
  fuzz::expect(io::ZipArchive(file).size("a/data.pkl") == input.size(), "the archive of this target is none");
  fuzz::accepted([&] {
    for (const auto& [key, tensor] : io::read_torch_state_dict(file))
      fuzz::expect(tensor.data.size() == uint64_t(tensor.size()) * size_of(tensor.dtype), "the bytes do not fit the shape");
  });
}
