#include "fovea/io/torch_pickle.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "fovea/core/error.h"
#include "fovea/io/input_file.h"
#include "fovea/io/pickle_machine.h"
#include "fovea/io/zip_archive.h"

namespace fovea::io {

namespace {

using Kind = PickleValue::Kind;

constexpr uint64_t kMaxPickle = uint64_t{16} << 20;
constexpr const char* kConvert =
    "load it with PyTorch where you trust it and write torch.save(model.state_dict(), FILE) with PyTorch 1.6 or later";

void refuse_other_formats(const InputFile& file) {
  std::vector<std::byte> start(std::min<uint64_t>(file.size(), 262));
  file.read_at(0, start);
  const std::string_view text(reinterpret_cast<const char*>(start.data()), start.size());
  if (text.starts_with("PK\003\004")) return;
  if (text.starts_with("\x80") || (text.size() >= 262 && text.substr(257, 5) == "ustar"))
    throw IoError(file.path(),
                  std::string("is a PyTorch file of the form used before 1.6, expected a zip archive; ") + kConvert);
  throw IoError(file.path(), "is no PyTorch checkpoint, expected a zip archive as torch.save writes it");
}

// Folder in the archive, "archive" or the file's old name: the one that holds data.pkl.
std::string archive_root(const InputFile& file, const ZipArchive& zip) {
  std::string root;
  constexpr std::string_view suffix = "/data.pkl";
  for (const std::string& name : zip.names()) {
    if (!name.ends_with(suffix) || name.find('/') != name.size() - suffix.size()) continue;
    if (!root.empty()) throw IoError(file.path(), "holds two data.pkl, expected one");
    root = name.substr(0, name.size() - suffix.size());
  }
  if (root.empty()) throw IoError(file.path(), "is a zip archive without data.pkl, so no PyTorch checkpoint");
  if (zip.contains(root + "/constants.pkl"))
    throw IoError(file.path(), std::string("is a TorchScript archive, which is a program; ") + kConvert);
  if (zip.contains(root + "/byteorder")) {
    std::string order(std::min<uint64_t>(zip.size(root + "/byteorder"), 16), '\0');
    if (zip.size(root + "/byteorder") == order.size())
      zip.read(root + "/byteorder", std::as_writable_bytes(std::span(order)));
    if (order != "little") throw IoError(file.path(), "was written on a big-endian machine, expected little-endian");
  }
  return root;
}

bool holds_tensors(const PickleValue& v) {
  if (v.kind != Kind::kDict) return false;
  for (size_t i = 1; i < v.items.size(); i += 2)
    if (v.items[i]->kind == Kind::kTensor) return true;
  return false;
}

const PickleValue& find_state_dict(const std::filesystem::path& path, const PickleValue& root) {
  if (holds_tensors(root)) return root;
  std::string keys;
  for (const char* wanted : {"state_dict", "network_weights", "model", "model_state_dict"})
    for (size_t i = 0; root.kind == Kind::kDict && i < root.items.size(); i += 2)
      if (root.items[i]->kind == Kind::kString && root.items[i]->text == wanted && holds_tensors(*root.items[i + 1]))
        return *root.items[i + 1];
  for (size_t i = 0; root.kind == Kind::kDict && i < root.items.size() && keys.size() < 120; i += 2)
    if (root.items[i]->kind == Kind::kString) keys += (keys.empty() ? "" : ", ") + root.items[i]->text.substr(0, 40);
  std::replace_if(
      keys.begin(), keys.end(), [](unsigned char c) { return c < 32; }, '?');
  throw IoError(
      path, "holds no dictionary of tensors at the top or under state_dict, network_weights, model, model_state_dict" +
                (keys.empty() ? "" : "; its keys are " + keys));
}

// Bytes of the tensor; throws unless the view lies inside its storage.
uint64_t check_view(const std::filesystem::path& path, const std::string& name, const StoredTensor& t) {
  const auto fail = [&](const std::string& problem) {
    throw IoError(path, "tensor \"" + name.substr(0, 80) + "\" " + problem);
  };
  int64_t elements = 1, last = t.offset;
  bool empty = false;
  for (const int64_t n : t.shape) {
    if (n < 0) fail("has a negative size");
    if (n == 0)
      empty = true;
    else if (__builtin_mul_overflow(elements, n, &elements))
      fail("has a size that overflows");
  }
  if (t.offset < 0) fail("has a negative offset");
  for (size_t a = 0; a < t.shape.size() && !empty; ++a) {
    int64_t step = 0;
    if (t.stride[a] < 0) fail("has a negative stride");
    if (__builtin_mul_overflow(t.shape[a] - 1, t.stride[a], &step) || __builtin_add_overflow(last, step, &last))
      fail("has a size that overflows");
  }
  if (empty) return 0;
  if (last >= t.storage_elements)
    fail("reaches element " + std::to_string(last) + " of a storage of " + std::to_string(t.storage_elements));
  if (elements > INT64_MAX / 16) fail("has a size that overflows");
  return uint64_t(elements) * size_of(t.dtype);
}

bool is_contiguous(const StoredTensor& t) {
  int64_t step = 1;
  for (size_t a = t.shape.size(); a-- > 0; step *= t.shape[a])
    if (t.shape[a] != 1 && t.stride[a] != step) return false;
  return true;
}

// Copies a strided view into contiguous memory, innermost axis in the inner loop.
void gather(const StoredTensor& t, std::span<const std::byte> storage, std::vector<std::byte>& out) {
  const size_t width = size_of(t.dtype), rank = t.shape.size();
  if (is_contiguous(t)) {
    std::memcpy(out.data(), storage.data() + size_t(t.offset) * width, out.size());
    return;
  }
  const int64_t inner = t.shape[rank - 1], inner_stride = t.stride[rank - 1];
  std::vector<int64_t> index(rank, 0);
  for (size_t to = 0; to < out.size();) {
    int64_t from = t.offset;
    for (size_t a = 0; a + 1 < rank; ++a) from += index[a] * t.stride[a];
    for (int64_t i = 0; i < inner; ++i, to += width)
      std::memcpy(&out[to], &storage[size_t(from + i * inner_stride) * width], width);
    for (size_t a = rank - 1; a-- > 0;) {
      if (++index[a] < t.shape[a]) break;
      index[a] = 0;
    }
  }
}

}  // namespace

TensorMap read_torch_state_dict(const InputFile& file) {
  const std::filesystem::path& path = file.path();
  refuse_other_formats(file);
  const ZipArchive zip(file);
  const std::string root = archive_root(file, zip);
  const std::string program_name = root + "/data.pkl";
  if (zip.size(program_name) > kMaxPickle)
    throw IoError(path, "data.pkl has " + std::to_string(zip.size(program_name)) + " bytes, expected at most " +
                            std::to_string(kMaxPickle));
  std::vector<std::byte> program(zip.size(program_name));
  zip.read(program_name, program);
  PickleMachine machine(path, program);
  const PickleValue& saved = machine.run();
  PickleValue alone;  // a tensor that was saved by itself
  alone.kind = Kind::kDict;
  PickleValue no_name;
  no_name.kind = Kind::kString;
  alone.items = {&no_name, &saved};
  const PickleValue& dict = saved.kind == Kind::kTensor ? alone : find_state_dict(path, saved);

  // 1. What there is, by storage: each storage is read once.
  TensorMap tensors;
  std::map<std::string, std::vector<std::pair<const StoredTensor*, TensorData*>>> by_storage;
  const uint64_t limit = 4 * file.size();
  uint64_t total = 0;
  for (size_t i = 0; i < dict.items.size(); i += 2) {
    const PickleValue &key = *dict.items[i], &value = *dict.items[i + 1];
    if (value.kind != Kind::kTensor) continue;
    if (key.kind != Kind::kString) throw IoError(path, "a tensor in the state dict has a name that is no string");
    const StoredTensor& t = value.tensor;
    const uint64_t bytes = check_view(path, key.text, t);
    // Tied weights share a storage; a small file in which everything shares one must not fill the memory.
    if (__builtin_add_overflow(total, bytes, &total) || total > limit)
      throw IoError(path, "its tensors would unpack to more than " + std::to_string(limit) +
                              " bytes, four times the file; expanded tensors are refused");
    const auto [slot, fresh] = tensors.try_emplace(key.text);
    if (!fresh) throw IoError(path, "tensor \"" + key.text.substr(0, 80) + "\" is there twice");
    slot->second.dtype = t.dtype, slot->second.shape = t.shape;
    by_storage[t.storage].emplace_back(&t, &slot->second);
  }

  // 2. The bytes. A tensor that is its whole storage is read in place.
  for (const auto& [key, views] : by_storage) {
    const std::string name = root + "/data/" + key;
    const uint64_t present = zip.size(name);
    for (const auto& [view, tensor] : views) {
      const uint64_t width = size_of(view->dtype);
      if (uint64_t(view->storage_elements) > present / width || uint64_t(view->storage_elements) * width != present)
        throw IoError(path, "storage \"" + key.substr(0, 40) + "\" has " + std::to_string(present) +
                                " bytes, expected " + std::to_string(view->storage_elements) + " elements of " +
                                std::string(name_of(view->dtype)));
      tensor->data.resize(uint64_t(tensor->size()) * width);
    }
    const auto& [first, target] = views.front();
    if (views.size() == 1 && target->data.size() == present && present > 0 && is_contiguous(*first)) {
      zip.read(name, target->data);
      continue;
    }
    std::vector<std::byte> storage(present);
    zip.read(name, storage);
    for (const auto& [view, tensor] : views)
      if (!tensor->data.empty()) gather(*view, storage, tensor->data);
  }
  return tensors;
}

TensorMap read_torch_state_dict(const std::filesystem::path& path) { return read_torch_state_dict(InputFile(path)); }

}  // namespace fovea::io
