#include "fovea/io/feature_file.h"

#include <cstring>

#include "fovea/core/error.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/json_file.h"
#include "fovea/io/reader_process.h"
#include "fovea/io/torch_pickle.h"

namespace fovea::io {

namespace fs = std::filesystem;

FeatureHead parse_feature_head(const fs::path& path, std::string_view line, uint64_t max_bytes) {
  FeatureHead head;
  try {
    const Json json = Json::parse(line);
    const int64_t rows = head.rows = whole_number(json.at("rows")), columns = head.columns = whole_number(json.at("columns"));
    const int64_t coord_rows = head.coord_rows = whole_number(json.at("coord_rows"));
    // The reader's word is not taken on trust.
    if (rows < 0 || columns < 0 || coord_rows < -1 || (columns > 0 && uint64_t(rows) > max_bytes / 4 / uint64_t(columns)) || coord_rows > int64_t(max_bytes / 16))
      throw IoError(path, "its reader speaks of " + std::to_string(rows) + " x " + std::to_string(columns) + " features");
    head.encoder = json.at("encoder").get<std::string>();
    for (const auto& [name, value] : json.at("numbers").items()) head.numbers[name] = value.get<double>();
  } catch (const Json::exception&) {
    throw IoError(path, "its reader said nothing that can be understood");
  }
  return head;
}

namespace {
FeatureFile read_hdf5(const fs::path& path, uint64_t max_bytes) {
  ReaderProcess reader(path, {"features", path.string(), std::to_string(max_bytes)});
  const FeatureHead head = parse_feature_head(path, reader.read_line(size_t{1} << 20), max_bytes);
  const uint64_t feature_bytes = uint64_t(head.rows * head.columns) * 4, coord_bytes = uint64_t(std::max<int64_t>(head.coord_rows, 0)) * 16;
  reader.expect(feature_bytes + coord_bytes);
  FeatureFile file;
  file.encoder = head.encoder, file.numbers = head.numbers;
  if (head.columns > 0) file.tensors["features"] = {DType::kF32, {head.rows, head.columns}, reader.read_block(feature_bytes, "features")};
  if (head.coord_rows >= 0) file.tensors["coords"] = {DType::kI64, {head.coord_rows, 2}, reader.read_block(coord_bytes, "coords")};
  return file;
}

// What torch.save wrote of a tensor, or of a dictionary with tensors of these names.
FeatureFile of_tensors(TensorMap tensors, const fs::path& path) {
  FeatureFile file;
  for (const char* name : {"", "features", "coords"})
    if (auto node = tensors.extract(name); !node.empty()) file.tensors[*name ? name : "features"] = std::move(node.mapped());
  if (!file.tensors.contains("features")) throw IoError(path, "holds no features, expected one tensor or a dictionary with 'features'");
  auto& features = file.tensors.at("features");
  if (features.shape.size() == 3 && features.shape[0] == 1) features.shape.erase(features.shape.begin());
  return file;
}
}  // namespace

FeatureFile read_feature_file(const fs::path& path, uint64_t max_bytes) {
  const std::string ending = path.extension().string();
  if (ending == ".h5" || ending == ".hdf5") return read_hdf5(path, max_bytes);
  if (ending == ".pt" || ending == ".pth") return of_tensors(read_torch_state_dict(path), path);
  if (ending == ".safetensors") return of_tensors(read_safetensors(path), path);
  throw IoError(path, "is no feature file, expected .h5, .pt or .safetensors");
}

void write_feature_file(const fs::path& path, const FeatureFile& file) {
  const auto features = file.tensors.find("features"), coords = file.tensors.find("coords");
  if (features == file.tensors.end() || features->second.dtype != DType::kF32 || features->second.shape.size() != 2)
    throw ArgumentError(path.string() + ": features are f32 [N,D]");
  if (coords != file.tensors.end() && (coords->second.dtype != DType::kI64 || coords->second.shape != std::vector<int64_t>{features->second.shape[0], 2}))
    throw ArgumentError(path.string() + ": coords are i64 [N,2], as many as features");
  const bool located = coords != file.tensors.end();
  Json head = {{"rows", features->second.shape[0]}, {"columns", features->second.shape[1]}, {"coord_rows", located ? coords->second.shape[0] : -1},
               {"encoder", file.encoder}, {"numbers", Json::object()}};
  for (const auto& [name, value] : file.numbers) head["numbers"][name] = value;
  ReaderProcess encoder(path, {"encode-features", path.string()}, ReaderTalk::kRequests);
  encoder.request(head.dump() + "\n");
  const auto send = [&](const TensorData& t) { encoder.request({reinterpret_cast<const char*>(t.data.data()), t.data.size()}); };
  send(features->second);
  if (located) send(coords->second);
  uint64_t size = 0;
  try {
    size = uint64_t(whole_number(Json::parse(encoder.read_line(size_t{1} << 20)).at("bytes")));
  } catch (const Json::exception&) {
    throw IoError(path, "its encoder said nothing that can be understood");
  }
  encoder.expect(size);
  const auto bytes = encoder.read_block(size, "HDF5 file");
  AtomicFile out(path);
  out.write(bytes.data(), bytes.size());
  out.commit();
}

}  // namespace fovea::io
