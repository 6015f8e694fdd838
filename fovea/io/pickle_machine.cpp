#include "fovea/io/pickle_machine.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstring>

#include "fovea/core/error.h"

namespace fovea::io {

namespace {

constexpr std::array<std::pair<std::string_view, DType>, 10> kStorages{{
    {"torch FloatStorage", DType::kF32},
    {"torch DoubleStorage", DType::kF64},
    {"torch HalfStorage", DType::kF16},
    {"torch BFloat16Storage", DType::kBF16},
    {"torch LongStorage", DType::kI64},
    {"torch IntStorage", DType::kI32},
    {"torch ShortStorage", DType::kI16},
    {"torch CharStorage", DType::kI8},
    {"torch ByteStorage", DType::kU8},
    {"torch BoolStorage", DType::kBool},
}};
constexpr std::array<std::string_view, 4> kOthers{"collections OrderedDict", "torch Size",
                                                  "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"};

std::string quote(std::string_view s) {
  std::string out;
  for (const char c : s.substr(0, 100)) out += c >= 32 && c < 127 ? c : '?';
  return out;
}

}  // namespace

void PickleMachine::fail(const std::string& problem) const {
  throw IoError(path_, "pickle byte " + std::to_string(opcode_at_) + ": " + problem);
}

std::span<const std::byte> PickleMachine::take(uint64_t bytes) {
  if (bytes > program_.size() - at_) fail("the pickle ends too early");
  const auto out = program_.subspan(at_, bytes);
  at_ += bytes;
  return out;
}

template <class T>
T PickleMachine::take_number() {
  T value;
  std::memcpy(&value, take(sizeof value).data(), sizeof value);
  return value;
}

std::string PickleMachine::take_text(uint64_t bytes) {
  const auto raw = take(bytes);
  return {reinterpret_cast<const char*>(raw.data()), raw.size()};
}

std::string PickleMachine::take_line() {
  const auto rest = program_.subspan(at_);
  const auto end = std::find(rest.begin(), rest.end(), std::byte{'\n'});
  if (end == rest.end()) fail("the pickle ends too early");
  std::string line = take_text(uint64_t(end - rest.begin()));
  ++at_;
  return line;
}

PickleValue* PickleMachine::make(Kind kind) {
  values_.emplace_back().kind = kind;
  return &values_.back();
}

PickleValue* PickleMachine::pop() {
  if (stack_.empty() || stack_.back()->kind == Kind::kMark) fail("takes a value that is not there");
  PickleValue* value = stack_.back();
  stack_.pop_back();
  return value;
}

PickleValue* PickleMachine::top(Kind kind, const char* what) {
  if (stack_.empty() || stack_.back()->kind != kind) fail(std::string("expected ") + what);
  return stack_.back();
}

std::vector<const PickleValue*> PickleMachine::pop_to_mark() {
  size_t mark = stack_.size();
  while (mark > 0 && stack_[mark - 1]->kind != Kind::kMark) --mark;
  if (mark == 0) fail("takes a mark that is not there");
  std::vector<const PickleValue*> items(stack_.begin() + std::ptrdiff_t(mark), stack_.end());
  stack_.resize(mark - 1);
  return items;
}

void PickleMachine::push_int(int64_t value) {
  stack_.push_back(make(Kind::kInt));
  stack_.back()->integer = value;
}

void PickleMachine::push_name(std::string module, std::string name) {
  const std::string full = module + " " + name;
  const bool known = std::find(kOthers.begin(), kOthers.end(), full) != kOthers.end() ||
                     std::any_of(kStorages.begin(), kStorages.end(), [&](const auto& s) { return s.first == full; });
  if (!known)
    fail("needs the Python object " + quote(module) + "." + quote(name) +
         ", which this reader refuses; load the file with PyTorch where you trust it and save only its state_dict()");
  stack_.push_back(make(Kind::kName));
  stack_.back()->text = full;
}

void PickleMachine::push_tuple(size_t count) {
  PickleValue* tuple = make(Kind::kTuple);
  for (size_t i = 0; i < count; ++i) tuple->items.insert(tuple->items.begin(), pop());
  stack_.push_back(tuple);
}

void PickleMachine::remember(uint64_t slot) {
  // Numbers are given in order; a gap would only serve to make us allocate.
  if (stack_.empty() || stack_.back()->kind == Kind::kMark || slot > memo_.size())
    fail("stores memo " + std::to_string(slot) + " out of order");
  if (slot == memo_.size())
    memo_.push_back(stack_.back());
  else
    memo_[slot] = stack_.back();
}

void PickleMachine::recall(uint64_t slot) {
  if (slot >= memo_.size()) fail("asks for memo " + std::to_string(slot) + ", which is not there");
  stack_.push_back(memo_[slot]);
}

// ('storage', torch.FloatStorage, key, device, elements)
void PickleMachine::load_storage() {
  const PickleValue* id = pop();
  const auto is = [&](size_t i, Kind kind) { return id->items[i]->kind == kind; };
  const bool good = id->kind == Kind::kTuple && id->items.size() == 5 && is(0, Kind::kString) &&
                    id->items[0]->text == "storage" && is(1, Kind::kName) && is(2, Kind::kString) &&
                    is(3, Kind::kString) && is(4, Kind::kInt) && id->items[4]->integer >= 0 &&
                    id->items[2]->text.size() <= 40;
  if (!good) fail("a persistent id is no storage");
  const auto type =
      std::find_if(kStorages.begin(), kStorages.end(), [&](const auto& s) { return s.first == id->items[1]->text; });
  if (type == kStorages.end()) fail(quote(id->items[1]->text) + " is no storage type");
  PickleValue* storage = make(Kind::kStorage);
  storage->tensor.storage = id->items[2]->text;
  storage->tensor.dtype = type->second;
  storage->tensor.storage_elements = id->items[4]->integer;
  stack_.push_back(storage);
}

// Stands in for a call of one of the four known names. Nothing is called: the arguments are data.
void PickleMachine::reduce() {
  const PickleValue* arguments = pop();
  const PickleValue* name = pop();
  if (name->kind != Kind::kName || arguments->kind != Kind::kTuple) fail("calls something that is no known name");
  const auto& items = arguments->items;
  if (name->text == "collections OrderedDict") {
    if (!items.empty()) fail("makes an OrderedDict with arguments");
    stack_.push_back(make(Kind::kDict));
  } else if (name->text == "torch Size") {
    if (items.size() != 1 || items[0]->kind != Kind::kTuple || items[0]->items.size() > 64)
      fail("makes a torch.Size of no short tuple");
    PickleValue* size = make(Kind::kTuple);
    size->items = items[0]->items;
    stack_.push_back(size);
  } else if (name->text == "torch._utils _rebuild_parameter") {
    if (items.size() != 3 || items[0]->kind != Kind::kTensor) fail("makes a parameter of no tensor");
    PickleValue* parameter = make(Kind::kTensor);
    parameter->tensor = items[0]->tensor;
    stack_.push_back(parameter);
  } else if (name->text == "torch._utils _rebuild_tensor_v2") {
    const bool good = items.size() >= 6 && items.size() <= 7 && items[0]->kind == Kind::kStorage &&
                      items[1]->kind == Kind::kInt && items[2]->kind == Kind::kTuple &&
                      items[3]->kind == Kind::kTuple && items[2]->items.size() == items[3]->items.size() &&
                      items[2]->items.size() <= 64;
    if (!good) fail("describes a tensor in no known way");
    PickleValue* tensor = make(Kind::kTensor);
    tensor->tensor = items[0]->tensor;
    tensor->tensor.offset = items[1]->integer;
    for (const auto& [list, to] :
         {std::pair{items[2], &tensor->tensor.shape}, std::pair{items[3], &tensor->tensor.stride}})
      for (const PickleValue* n : list->items) {
        if (n->kind != Kind::kInt) fail("a tensor's shape or stride is no integer");
        to->push_back(n->integer);
      }
    stack_.push_back(tensor);
  } else {
    fail("calls " + quote(name->text));
  }
}

void PickleMachine::step(unsigned opcode) {
  switch (opcode) {
    case 0x80:  // PROTO
      if (const unsigned version = take_number<uint8_t>(); version < 2 || version > 5)
        fail("pickle protocol " + std::to_string(version) + ", expected 2 to 5");
      return;
    case 0x95:
      take(8);
      return;  // FRAME: a hint for reading ahead
    case '(':
      stack_.push_back(make(Kind::kMark));
      return;
    case 'N':
      stack_.push_back(make(Kind::kNone));
      return;
    case 0x88:
    case 0x89:  // NEWTRUE, NEWFALSE
      stack_.push_back(make(Kind::kBool));
      stack_.back()->integer = opcode == 0x88;
      return;
    case 'K':
      return push_int(take_number<uint8_t>());
    case 'M':
      return push_int(take_number<uint16_t>());
    case 'J':
      return push_int(take_number<int32_t>());
    case 0x8a: {  // LONG1: little-endian two's complement
      const auto bytes = take(take_number<uint8_t>());
      if (bytes.size() > 8) fail("an integer of " + std::to_string(bytes.size()) + " bytes, expected at most 8");
      uint64_t value = !bytes.empty() && (bytes.back() & std::byte{0x80}) != std::byte{0} ? ~uint64_t{0} : 0;
      std::memcpy(&value, bytes.data(), bytes.size());
      return push_int(int64_t(value));
    }
    case 'G':
      take(8);
      stack_.push_back(make(Kind::kFloat));
      return;  // BINFLOAT: learning rates and the like, not needed
    case 'X':
    case 0x8c:
    case 0x8d: {  // BINUNICODE, SHORT_, 8
      const uint64_t bytes = opcode == 'X'    ? take_number<uint32_t>()
                             : opcode == 0x8c ? take_number<uint8_t>()
                                              : take_number<uint64_t>();
      std::string text = take_text(bytes);
      stack_.push_back(make(Kind::kString));
      stack_.back()->text = std::move(text);
      return;
    }
    case ')':
      stack_.push_back(make(Kind::kTuple));
      return;
    case 0x85:
    case 0x86:
    case 0x87:
      return push_tuple(opcode - 0x84);
    case 't': {
      auto items = pop_to_mark();
      stack_.push_back(make(Kind::kTuple));
      stack_.back()->items = std::move(items);
      return;
    }
    case ']':
      stack_.push_back(make(Kind::kList));
      return;
    case '}':
      stack_.push_back(make(Kind::kDict));
      return;
    case 'a': {
      const PickleValue* item = pop();
      top(Kind::kList, "a list to append to")->items.push_back(item);
      return;
    }
    case 'e': {
      const auto items = pop_to_mark();
      auto& list = top(Kind::kList, "a list to append to")->items;
      list.insert(list.end(), items.begin(), items.end());
      return;
    }
    case 's': {
      const PickleValue* value = pop();
      const PickleValue* key = pop();
      auto& dict = top(Kind::kDict, "a dictionary to put into")->items;
      dict.push_back(key), dict.push_back(value);
      return;
    }
    case 'u': {
      const auto items = pop_to_mark();
      if (items.size() % 2) fail("puts a key without value");
      auto& dict = top(Kind::kDict, "a dictionary to put into")->items;
      dict.insert(dict.end(), items.begin(), items.end());
      return;
    }
    case 'q':
      return remember(take_number<uint8_t>());
    case 'r':
      return remember(take_number<uint32_t>());
    case 0x94:
      return remember(memo_.size());  // MEMOIZE
    case 'h':
      return recall(take_number<uint8_t>());
    case 'j':
      return recall(take_number<uint32_t>());
    case 'c': {
      std::string module = take_line();
      return push_name(std::move(module), take_line());
    }
    case 0x93: {  // STACK_GLOBAL
      const PickleValue* name = pop();
      const PickleValue* module = pop();
      if (name->kind != Kind::kString || module->kind != Kind::kString) fail("a Python name is no string");
      return push_name(module->text, name->text);
    }
    case 'R':
      return reduce();
    case 'Q':
      return load_storage();
    case 'b':  // BUILD: attributes of an OrderedDict (a module's _metadata), not needed
      pop();
      top(Kind::kDict, "attributes only for an OrderedDict");
      return;
    default: {
      char text[48];
      std::snprintf(text, sizeof text, "opcode 0x%02x is refused", opcode);
      fail(text);
    }
  }
}

const PickleValue& PickleMachine::run() {
  while (true) {
    opcode_at_ = at_;
    const unsigned opcode = take_number<uint8_t>();
    if (opcode == '.') break;
    step(opcode);
  }
  if (stack_.size() != 1 || stack_.back()->kind == Kind::kMark)
    fail("stops with " + std::to_string(stack_.size()) + " values, expected 1");
  if (at_ != program_.size()) fail(std::to_string(program_.size() - at_) + " bytes follow the end of the pickle");
  return *stack_.back();
}

}  // namespace fovea::io
