#include "fovea/io/torch_pickle.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include <cstring>

#include "fovea/core/rng.h"
#include "fovea/io/pickle_machine.h"
#include "fovea/io/zip_archive.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::spill;
using testing::TestFolder;

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// A zip of stored entries as torch.save writes it; with `zip64` the sizes live in extra fields and a zip64 end record.
std::string zip_of(const std::vector<std::pair<std::string, std::string>>& entries, bool zip64 = false) {
  std::string bytes, directory;
  for (const auto& [name, content] : entries) {
    const uint32_t crc =
        uint32_t(crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(content.data()), content.size()));
    const uint64_t offset = bytes.size(), size = content.size();
    const uint32_t small = zip64 ? 0xffffffffu : uint32_t(size);
    const std::string pad(5, 'Z');  // torch aligns storages with an extra field
    bytes += raw(uint32_t{0x04034b50}) + std::string(10, '\0') + raw(crc) + raw(small) + raw(small) +
             raw(uint16_t(name.size())) + raw(uint16_t(pad.size())) + name + pad + content;
    const std::string extra = zip64 ? raw(uint16_t{1}) + raw(uint16_t{24}) + raw(size) + raw(size) + raw(offset) : "";
    // version made by and needed, flags, method, time, date | comment length, disk, internal and external attributes
    directory += raw(uint32_t{0x02014b50}) + std::string(12, '\0') + raw(crc) + raw(small) + raw(small) +
                 raw(uint16_t(name.size())) + raw(uint16_t(extra.size())) + std::string(10, '\0') +
                 raw(zip64 ? 0xffffffffu : uint32_t(offset)) + name + extra;
  }
  const uint64_t at = bytes.size(), n = entries.size();
  bytes += directory;
  if (zip64) {
    const uint64_t end64 = bytes.size();
    bytes += raw(uint32_t{0x06064b50}) + raw(uint64_t{44}) + std::string(12, '\0') + raw(n) + raw(n) +
             raw(uint64_t(directory.size())) + raw(at);
    bytes += raw(uint32_t{0x07064b50}) + raw(uint32_t{0}) + raw(end64) + raw(uint32_t{1});
    return bytes + raw(uint32_t{0x06054b50}) + std::string(4, '\0') + raw(uint16_t{0xffff}) + raw(uint16_t{0xffff}) +
           raw(0xffffffffu) + raw(0xffffffffu) + raw(uint16_t{0});
  }
  return bytes + raw(uint32_t{0x06054b50}) + std::string(4, '\0') + raw(uint16_t(n)) + raw(uint16_t(n)) +
         raw(uint32_t(directory.size())) + raw(uint32_t(at)) + raw(uint16_t{0});
}

std::string text(const std::string& s) { return "X" + raw(uint32_t(s.size())) + s; }
std::string number(int n) { return "J" + raw(n); }

// {"w": 2x3 view of storage "0", transposed; "b": all 6 elements; "epoch": 3}
std::string program() {
  const std::string storage =
      "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(6) + "tQ";
  const std::string hooks =
      "\x89"
      "ccollections\nOrderedDict\n)R";
  const std::string w = "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + number(2) + number(3) + "\x86" +
                        number(1) + number(2) + "\x86" + hooks + "tR";
  const std::string b = "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + number(6) + "\x85" + number(1) +
                        "\x85" + hooks + "tR";
  return "\x80\x02}(" + text("w") + w + text("b") + b + text("epoch") + number(3) + "u.";
}

std::string six() {
  std::string bytes;
  for (int i = 0; i < 6; ++i) bytes += raw(float(i));
  return bytes;
}

class TorchPickleTest : public ::testing::Test {
 protected:
  std::string refusal(const std::string& bytes) {
    spill(folder_ / "a.pt", bytes);
    return message_of<IoError>([&] { read_torch_state_dict(folder_ / "a.pt"); });
  }
  TestFolder folder_;
};

TEST_F(TorchPickleTest, ReadsSharedAndStridedTensorsFromPlainZipAndZip64) {
  for (const bool zip64 : {false, true}) {
    spill(folder_ / "a.pt", zip_of({{"a/data.pkl", program()}, {"a/data/0", six()}, {"a/version", "3\n"}}, zip64));
    const TensorMap tensors = read_torch_state_dict(folder_ / "a.pt");
    ASSERT_EQ(tensors.size(), 2u);
    EXPECT_EQ(tensors.at("w").shape, (std::vector<int64_t>{2, 3}));
    std::string transposed;
    for (const float v : {0.f, 2.f, 4.f, 1.f, 3.f, 5.f}) transposed += raw(v);
    EXPECT_EQ(testing::view(tensors.at("w").data), transposed);
    EXPECT_EQ(testing::view(tensors.at("b").data), six());
  }
}

TEST_F(TorchPickleTest, RefusesEveryCutAndEveryFlippedBitThatWouldChangeATensor) {
  const std::string whole = zip_of({{"a/data.pkl", program()}, {"a/data/0", six()}});
  for (size_t cut = 0; cut < whole.size(); ++cut) EXPECT_NE(refusal(whole.substr(0, cut)), "") << cut;
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] ^= char(1 << bit % 8);
    spill(folder_ / "a.pt", bytes);
    try {
      const TensorMap tensors = read_torch_state_dict(folder_ / "a.pt");
      EXPECT_EQ(testing::view(tensors.at("b").data), six()) << "bit " << bit;
    } catch (const IoError&) {
    }
  }
}

TEST_F(TorchPickleTest, RefusesArchivesWhoseDirectoryLies) {
  const std::string good = zip_of({{"a/data.pkl", program()}, {"a/data/0", six()}});
  const size_t end = good.size() - 22, directory = good.find("PK\x01\x02");
  const auto patched = [&](size_t at, auto value) {
    std::string bytes = good;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    return bytes;
  };
  EXPECT_THAT(refusal(patched(end + 10, uint16_t{3})), HasSubstr("entry 2 of 3 is missing"));
  EXPECT_THAT(refusal(patched(end + 16, uint32_t{0x7fffffff})), HasSubstr("central directory lies outside the file"));
  EXPECT_THAT(refusal(patched(end + 12, uint32_t{0x7fffffff})), HasSubstr("central directory lies outside the file"));
  EXPECT_THAT(refusal(patched(directory + 20, uint32_t{0x7fffffff})),
              HasSubstr("claims bytes that the file does not have"));
  EXPECT_THAT(refusal(patched(directory + 42, uint32_t{0x7fffffff})),
              HasSubstr("claims bytes that the file does not have"));
  EXPECT_THAT(refusal(patched(directory + 42, uint32_t{7})), HasSubstr("disagrees with its local header"));
  EXPECT_THAT(refusal(patched(directory + 16, uint32_t{7})), HasSubstr("wrong checksum"));
  EXPECT_THAT(refusal(patched(directory + 10, uint16_t{8})), HasSubstr("is compressed"));
  EXPECT_THAT(refusal(patched(directory + 8, uint16_t{1})), HasSubstr("is encrypted"));
  EXPECT_THAT(refusal(zip_of({{"a/data.pkl", program()}, {"a/data/0", six()}, {"a/data/0", six()}})),
              HasSubstr("there twice"));
  EXPECT_THAT(refusal(good + "x"), HasSubstr("no central directory at its end"));
  EXPECT_THAT(refusal(std::string("\x80\x02", 2) + good), HasSubstr("before 1.6"));
}

// The machine alone, without checksums in the way: random programs out of real pieces.
TEST_F(TorchPickleTest, MutatedProgramsEndInAnIoErrorOrAValue) {
  const std::string good = program();
  const std::string opcodes =
      "\x80\x95(NKMJG)XteasuqrhjcRQb.]}"
      "\x85\x86\x87\x88\x89\x8a\x8c\x8d\x93\x94";
  const int rounds = std::getenv("FOVEA_FULL") ? 2'000'000 : 20'000;
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    Rng rng(5, 0, uint32_t(round));
    std::string bytes = good;
    for (uint64_t n = 1 + rng.below(6); n > 0; --n) {
      const size_t at = rng.below(bytes.size()), length = rng.below(std::min<uint64_t>(40, bytes.size() - at) + 1);
      switch (rng.below(5)) {
        case 0:
          bytes[at] ^= char(1u << rng.below(8));
          break;
        case 1:
          bytes[at] = opcodes[rng.below(opcodes.size())];
          break;
        case 2:
          bytes.insert(at, 1, opcodes[rng.below(opcodes.size())]);
          break;
        case 3:
          bytes.insert(rng.below(bytes.size()), bytes.substr(at, length));
          break;
        default:
          bytes.erase(at, std::min(length, bytes.size() - 1));
          break;
      }
    }
    const std::filesystem::path path = "mutated";
    try {
      PickleMachine machine(path, std::as_bytes(std::span(bytes)));
      machine.run();
    } catch (const IoError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, rounds / 2);
  EXPECT_LT(refused, rounds);
}

TEST_F(TorchPickleTest, AListInsideItselfIsHarmless) {
  const std::filesystem::path path = "cycle";
  const std::string bytes = "\x80\x02]q" + std::string(1, '\0') + "h" + std::string(1, '\0') + "a.";
  PickleMachine machine(path, std::as_bytes(std::span(bytes)));
  const PickleValue& list = machine.run();
  EXPECT_EQ(list.items.at(0), &list);
}

}  // namespace
}  // namespace fovea::io
