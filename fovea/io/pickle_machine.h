#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fovea/core/dtype.h"

namespace fovea::io {

/// A view of a storage, as the pickle describes it.
struct StoredTensor {
  std::string storage;  // key of the zip entry
  DType dtype = DType::kF32;
  int64_t storage_elements = 0;
  int64_t offset = 0;
  std::vector<int64_t> shape, stride;
};

/// A Python value that a checkpoint may hold.
struct PickleValue {
  enum class Kind { kMark, kNone, kBool, kInt, kFloat, kString, kTuple, kList, kDict, kName, kStorage, kTensor };
  Kind kind = Kind::kNone;
  int64_t integer = 0;                    // bool and int
  std::string text;                       // string; for kName "module name"
  std::vector<const PickleValue*> items;  // tuple and list; dict: key, value, key, value
  StoredTensor tensor;                    // storage and tensor
};

/// Runs the few opcodes that torch.save emits for dictionaries of tensors and numbers. Values live as long as the
/// machine.
class PickleMachine {
 public:
  /// `path` is for messages. Errors: IoError.
  PickleMachine(const std::filesystem::path& path, std::span<const std::byte> program)
      : path_(path), program_(program) {}
  const PickleValue& run();

 private:
  using Kind = PickleValue::Kind;
  [[noreturn]] void fail(const std::string& problem) const;
  std::span<const std::byte> take(uint64_t bytes);
  template <class T>
  T take_number();
  std::string take_text(uint64_t bytes);
  std::string take_line();
  PickleValue* make(Kind kind);
  PickleValue* pop();
  PickleValue* top(Kind kind, const char* what);
  std::vector<const PickleValue*> pop_to_mark();
  void push_int(int64_t value);
  void push_name(std::string module, std::string name);
  void push_tuple(size_t count);
  void remember(uint64_t slot);
  void recall(uint64_t slot);
  void reduce();
  void load_storage();
  void step(unsigned opcode);

  const std::filesystem::path& path_;
  std::span<const std::byte> program_;
  size_t at_ = 0, opcode_at_ = 0;
  std::deque<PickleValue> values_;  // all of them: cycles between lists and dicts need no counting
  std::vector<PickleValue*> stack_;
  std::vector<PickleValue*> memo_;
};

}  // namespace fovea::io
