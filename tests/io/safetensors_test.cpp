#include "fovea/io/safetensors.h"

#include <gmock/gmock.h>

#include <cstring>

#include "fovea/core/rng.h"
#include "tests/io/test_folder.h"

namespace fovea::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::slurp;
using testing::spill;
using testing::TestFolder;

// Random names, types and shapes, empty tensors and scalars among them.
TensorMap random_tensors(uint32_t index) {
  Rng rng(3, 0, index);
  TensorMap tensors;
  for (uint64_t n = rng.below(12); n > 0; --n) {
    std::string name = "t";
    for (uint64_t k = rng.below(8); k > 0; --k) name += std::string_view("ab.\"\\\n\xc3\xbc").substr(rng.below(6), 1);
    TensorData& t = tensors[name];
    t.dtype = DType(rng.below(13));
    t.shape.clear();
    for (uint64_t rank = rng.below(5); rank > 0; --rank) t.shape.push_back(int64_t(rng.below(5)));
    t.data.assign(size_t(t.size()) * size_of(t.dtype), std::byte{0});
    for (std::byte& b : t.data) b = std::byte(rng.next_u32());
  }
  return tensors;
}

bool equal(const TensorMap& a, const TensorMap& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.dtype == y.second.dtype && x.second.shape == y.second.shape &&
           x.second.data == y.second.data;
  });
}

std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\1');
}

class SafetensorsTest : public ::testing::Test {
 protected:
  std::string refusal(const std::string& bytes) {
    spill(folder_ / "bad", bytes);
    return message_of<IoError>([&] { read_safetensors(folder_ / "bad"); });
  }
  std::string why(const std::string& header, size_t data_bytes) { return refusal(file_of(header, data_bytes)); }
  TestFolder folder_;
};

TEST_F(SafetensorsTest, ReadsBackWhatItWroteAndWritesItTheSame) {
  for (uint32_t i = 0; i < 300; ++i) {
    const TensorMap tensors = random_tensors(i);
    const std::map<std::string, std::string> metadata =
        i % 2 ? std::map<std::string, std::string>{{"format", "pt"}, {"note", "a \"b\"\n"}}
              : std::map<std::string, std::string>{};
    write_safetensors(folder_ / "a", tensors, metadata);
    std::map<std::string, std::string> got;
    EXPECT_TRUE(equal(read_safetensors(folder_ / "a", &got), tensors)) << i;
    EXPECT_EQ(got, metadata);
    const std::string first = slurp(folder_ / "a");
    uint64_t length = 0;
    std::memcpy(&length, first.data(), 8);
    EXPECT_EQ(length % 8, 0u);
    write_safetensors(folder_ / "a", tensors, metadata);
    EXPECT_EQ(slurp(folder_ / "a"), first);
  }
}

TEST_F(SafetensorsTest, TakesTheSmallestFileAndSpacesAfterTheHeader) {
  spill(folder_ / "a", file_of("{}", 0));
  EXPECT_TRUE(read_safetensors(folder_ / "a").empty());
  spill(folder_ / "a", file_of(R"({ "a" : {"shape":[2], "data_offsets":[0,4],"dtype":"F16"} }    )", 4));
  EXPECT_EQ(read_safetensors(folder_ / "a").at("a").shape, std::vector<int64_t>{2});
}

TEST_F(SafetensorsTest, RefusesHeadersOfTheWrongLength) {
  EXPECT_THAT(refusal("1234567"), HasSubstr("has 7 bytes, expected a safetensors file"));
  EXPECT_THAT(refusal(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10)),
              HasSubstr("header of 100000001 bytes, expected at most 100000000"));
  EXPECT_THAT(refusal(std::string(8, '\xff') + "{}"), HasSubstr("header of 18446744073709551615 bytes"));
  EXPECT_THAT(refusal(std::string("\x03\0\0\0\0\0\0\0{}", 10)),
              HasSubstr("header of 3 bytes, but the file has 10; it is truncated"));
}

TEST_F(SafetensorsTest, RefusesHeadersThatAreNotTheDocumentedJson) {
  EXPECT_THAT(refusal(std::string(8, '\0')), HasSubstr("does not run from { to }"));
  EXPECT_THAT(why(" {}", 0), HasSubstr("does not run from { to }"));
  EXPECT_THAT(why("{}\n", 0), HasSubstr("only spaces after it"));
  EXPECT_THAT(why(std::string("{}\0\0", 4), 0), HasSubstr("only spaces after it"));
  EXPECT_THAT(why("[]", 0), HasSubstr("does not run from { to }"));
  EXPECT_THAT(why("{}{}", 0), HasSubstr("is not JSON"));
  EXPECT_THAT(why("{\"a\"}", 0), HasSubstr("is not JSON"));
  EXPECT_THAT(why("{\"a\":\"\xff\"}", 0), HasSubstr("not UTF-8"));
  EXPECT_THAT(why("{// c\n}", 0), HasSubstr("is not JSON"));
  EXPECT_THAT(why(R"({"a":3})", 0), HasSubstr("has the number 3 where the format allows none"));
  EXPECT_THAT(why(R"({"a":[]})", 0), HasSubstr("a list"));
  EXPECT_THAT(why(R"({"a":null})", 0), HasSubstr("null"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4),
              HasSubstr("unknown field \"x\""));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[1]}})", 4), HasSubstr("lacks dtype, shape or data_offsets"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("has shape twice"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4), HasSubstr("needs two data_offsets"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,2,4]}})", 4), HasSubstr("the number 4"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4), HasSubstr("a negative number"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4), HasSubstr("no integer"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4), HasSubstr("a list"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("has dtype F8_E4M3"));
  EXPECT_THAT(why(R"({"__metadata__":{"a":1}})", 0), HasSubstr("the number 1"));
  EXPECT_THAT(why(R"({"__metadata__":{"a":"1","a":"2"}})", 0), HasSubstr("\"a\" is there twice"));
  EXPECT_THAT(why(R"({"__metadata__":{},"__metadata__":{}})", 0), HasSubstr("twice"));
  EXPECT_THAT(why("{\"a\":" + std::string(100'000, '['), 0), HasSubstr("does not run"));
  EXPECT_THAT(why("{\"a\":" + std::string(100'000, '[') + "}", 0), HasSubstr("a list"));
}

TEST_F(SafetensorsTest, RefusesATensorThatIsThereTwice) {
  EXPECT_THAT(
      why(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2),
      HasSubstr("\"a\" is there twice"));
}

TEST_F(SafetensorsTest, RefusesRangesThatOverlapLeaveAHoleOrDoNotEndWithTheFile) {
  const auto two = [](int a0, int a1, int b0, int b1) {
    return R"({"a":{"dtype":"U8","shape":[)" + std::to_string(a1 - a0) + R"(],"data_offsets":[)" + std::to_string(a0) +
           "," + std::to_string(a1) + R"(]},"b":{"dtype":"U8","shape":[)" + std::to_string(b1 - b0) +
           R"(],"data_offsets":[)" + std::to_string(b0) + "," + std::to_string(b1) + "]}}";
  };
  spill(folder_ / "ok", file_of(two(2, 4, 0, 2), 4));
  EXPECT_EQ(read_safetensors(folder_ / "ok").size(), 2u);
  EXPECT_THAT(why(two(0, 2, 1, 3), 3), HasSubstr("overlaps"));
  EXPECT_THAT(why(two(0, 2, 0, 2), 2), HasSubstr("overlaps"));
  EXPECT_THAT(why(two(0, 2, 3, 4), 4), HasSubstr("a hole"));
  EXPECT_THAT(why(two(1, 2, 2, 4), 4), HasSubstr("a hole"));
  EXPECT_THAT(why(two(0, 2, 2, 4), 5), HasSubstr("bytes follow that belong to no tensor"));
  EXPECT_THAT(why(two(0, 2, 2, 4), 3), HasSubstr("it is truncated"));
  EXPECT_THAT(why(two(0, 4, 2, 2), 4), HasSubstr("overlaps")) << "an empty tensor inside another";
  EXPECT_THAT(why("{}", 1), HasSubstr("belong to no tensor"));
  EXPECT_THAT(why(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}})", 2), HasSubstr("range is 2 to 0"));
}

TEST_F(SafetensorsTest, RefusesShapesThatDoNotMatchTheirRangeOrOverflow) {
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
              HasSubstr("needs 8 bytes, but its range is 0 to 4"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0),
              HasSubstr("overflows"));
  EXPECT_THAT(why(R"({"a":{"dtype":"F64","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})", 0),
              HasSubstr("overflows"));
  EXPECT_THAT(why(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}})", 1),
              HasSubstr("the number 18446744073709551615"));
  EXPECT_THAT(why(R"({"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}})", 1),
              HasSubstr("no integer"));
}

TEST_F(SafetensorsTest, EveryCutIsRefusedAndFlippedHeaderBitsNeverLoadAnotherFile) {
  TensorMap tensors = random_tensors(5);
  tensors["block"] = {DType::kF32, {100}, std::vector<std::byte>(400, std::byte{9})};
  write_safetensors(folder_ / "a", tensors);
  const std::string whole = slurp(folder_ / "a");
  const size_t step = std::max<size_t>(1, whole.size() / 500);
  for (size_t cut = 0; cut < whole.size(); cut += step) EXPECT_NE(refusal(whole.substr(0, cut)), "") << cut;
  for (uint32_t round = 0; round < 2000; ++round) {
    Rng rng(9, 0, round);
    std::string bytes = whole;
    for (uint64_t n = 1 + rng.below(4); n > 0; --n) bytes[rng.below(whole.size() - 400)] ^= char(1u << rng.below(8));
    spill(folder_ / "b", bytes);
    try {
      uint64_t total = 0;
      for (const auto& [name, t] : read_safetensors(folder_ / "b")) total += t.data.size();
      EXPECT_LE(total, bytes.size());
    } catch (const IoError& e) {
      EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos);
    }
  }
}

TEST_F(SafetensorsTest, RefusesToWriteTensorsWhoseBytesDoNotFitTheirShape) {
  const auto problem = [&](const TensorMap& t) {
    return message_of<ArgumentError>([&] { write_safetensors(folder_ / "a", t); });
  };
  EXPECT_THAT(problem({{"a", {DType::kF32, {2}, std::vector<std::byte>(4)}}}),
              HasSubstr("tensor \"a\" [2] has 4 bytes, expected 8"));
  EXPECT_THAT(problem({{"a", {DType::kF32, {-1}, {}}}}), HasSubstr("tensor \"a\" [-1]"));
  EXPECT_THAT(problem({{"__metadata__", {DType::kU8, {0}, {}}}}), HasSubstr("cannot be called __metadata__"));
  EXPECT_THAT(problem({{"\xff", {DType::kU8, {0}, {}}}}), HasSubstr("not UTF-8"));
  EXPECT_EQ(folder_.entries(), 0u);
}

}  // namespace
}  // namespace fovea::io
