#include <algorithm>
#include <cstring>
#include <fstream>

#include "fovea/core/error.h"
#include "fovea/io/json_file.h"
#include "fovea/io/opened_image.h"
#include "fovea/io/reader_process.h"

namespace fovea::io {

namespace {
// The reader's word is not taken on trust: a damaged file may have gone to its head.
DType dtype_named(const std::filesystem::path& path, const std::string& name) {
  for (const DType dtype : {DType::kI16, DType::kI32, DType::kF32})
    if (name == name_of(dtype)) return dtype;
  throw IoError(path, "its reader speaks of voxels of type \"" + name + "\"");
}
}  // namespace

bool is_dicom(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    return std::any_of(fs::directory_iterator(path, ignored), fs::directory_iterator(), [](const auto& entry) { return entry.is_regular_file() && is_dicom(entry.path()); });
  char magic[4] = {};
  std::ifstream in(path, std::ios::binary);
  in.seekg(128);
  return in.read(magic, 4) && std::memcmp(magic, "DICM", 4) == 0;
}

ImageInfo parse_dicom_head(const std::filesystem::path& path, std::string_view line) {
  ImageInfo info;
  try {
    const Json head = Json::parse(line);
    info.format = "dicom";
    for (size_t a = 0; a < 3; ++a) info.geometry.shape[a] = whole_number(head.at("shape").at(a));
    info.geometry.affine = head.at("affine").get<Affine>();
    info.stored = info.dtype = dtype_named(path, head.at("dtype").get<std::string>());
    info.modality = head.at("modality").get<std::string>(), info.units = head.at("units").get<std::string>();
    if (head.contains("suv_per_unit")) info.suv_per_unit = head.at("suv_per_unit").get<double>();
    info.notes = head.at("notes").get<std::vector<std::string>>();
    info.file_bytes = uint64_t(whole_number(head.at("file_bytes")));
  } catch (const Json::exception&) {
    throw IoError(path, "its reader said nothing that can be understood");
  }
  info.affine_source = "plane positions";
  check_voxel_count(path, info.channels, info.geometry, info.stored);
  return info;
}

OpenedImage open_dicom(const std::filesystem::path& path, const ReadOptions& options, bool with_voxels) {
  auto reader = std::make_unique<ReaderProcess>(
      path, std::vector<std::string>{"dicom", path.string(), std::to_string(options.max_decoded_bytes), std::to_string(options.dicom_series),
                                     options.suv ? "suv" : "rescaled", with_voxels ? "voxels" : "header"});
  OpenedImage opened;
  opened.info = parse_dicom_head(path, reader->read_line(size_t{1} << 20));
  reader->expect(opened.stored_bytes());
  opened.voxels = std::move(reader);
  return opened;
}

}  // namespace fovea::io
