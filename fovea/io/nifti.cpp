#include <algorithm>
#include <cmath>
#include <cstring>

#include "fovea/core/error.h"
#include "fovea/io/label_table.h"
#include "fovea/io/nifti_header.h"
#include "fovea/io/opened_image.h"

namespace fovea::io {

namespace {

constexpr int kLabelTableCode = 0;  // as TotalSegmentator writes it; Workbench uses 30 for its own CIFTI text
constexpr size_t kExtender = 4;

int32_t read_i32(std::span<const std::byte> at, bool swap) {
  uint32_t value = 0;
  std::memcpy(&value, at.data(), sizeof value);
  return int32_t(swap ? __builtin_bswap32(value) : value);
}

// Between header and voxels: four bytes, the first of which says whether extensions follow; then (size, code, content)
// each a multiple of 16 bytes long.
void read_extensions(const std::filesystem::path& path, std::span<const std::byte> bytes, size_t header_bytes,
                     bool swap, ImageInfo& info) {
  if (bytes.size() < header_bytes + kExtender || bytes[header_bytes] == std::byte{0}) return;
  size_t at = header_bytes + kExtender;
  while (at + 8 <= bytes.size()) {
    const int64_t size = read_i32(bytes.subspan(at), swap), code = read_i32(bytes.subspan(at + 4), swap);
    const auto rest = bytes.subspan(at);
    const bool padding = std::all_of(rest.begin(), rest.end(), [](std::byte b) { return b == std::byte{0}; });
    if (padding) return;
    if (size < 16 || size % 16 != 0 || uint64_t(size) > rest.size())
      throw IoError(path, "extension at byte " + std::to_string(at) + " has size " + std::to_string(size) +
                              ", expected a multiple of 16 that ends before the voxels at " +
                              std::to_string(bytes.size()));
    info.extensions[int(code)] += int(size);
    if (code == kLabelTableCode) {
      std::string_view text(reinterpret_cast<const char*>(rest.data()) + 8, size_t(size) - 8);
      info.label_names.merge(parse_label_table(text));
    }
    at += size_t(size);
  }
}

// The source's header, if the volume still lies on the source's grid.
std::optional<NiftiHeader> unchanged_source(const std::filesystem::path& path, const Volume& v) {
  if (!v.header || (v.header->format != "nifti1" && v.header->format != "nifti2")) return std::nullopt;
  const auto kind = nifti_kind(v.header->bytes);
  if (!kind || v.header->bytes.size() < (kind->version == 1 ? 348u : 540u)) return std::nullopt;
  const NiftiHeader h = decode_nifti(v.header->bytes, *kind);
  std::string source, note;
  const Geometry g = nifti_geometry(path, h, source, note);
  if (g.shape != v.geometry.shape || g.affine != v.geometry.affine) return std::nullopt;
  return h;
}

}  // namespace

OpenedImage open_nifti(const InputFile& file, std::unique_ptr<ByteSource> source, bool compressed) {
  const std::filesystem::path& path = file.path();
  std::vector<std::byte> bytes(4);
  source->read_exactly(bytes, "the NIfTI header");
  const auto kind = nifti_kind(bytes);
  FOVEA_CHECK(kind.has_value(), "open_nifti on a file that is none");
  const size_t header_bytes = kind->version == 1 ? 348 : 540;
  bytes.resize(header_bytes);
  source->read_exactly(std::span(bytes).subspan(4), "the NIfTI header");
  const NiftiHeader h = decode_nifti(bytes, *kind);
  check_nifti(path, h);

  OpenedImage opened;
  ImageInfo& info = opened.info;
  info.format = kind->version == 1 ? "nifti1" : "nifti2";
  std::string note;
  info.geometry = nifti_geometry(path, h, info.affine_source, note);
  if (!note.empty()) info.notes.push_back(note);
  info.channels = nifti_channels(h);
  info.stored = *nifti_dtype(h.datatype);
  // A slope of 0 means: no scaling (nifti1.h).
  const bool identity = h.slope == 0 || (h.slope == 1 && h.inter == 0);
  if (!identity) info.slope = h.slope, info.inter = h.inter;
  info.dtype = identity ? info.stored : DType::kF32;
  info.big_endian = kind->swapped;
  info.compressed = compressed;
  info.file_bytes = file.size();
  check_voxel_count(path, info.channels, info.geometry, info.stored);

  const auto between = source->read_block(uint64_t(h.vox_offset) - header_bytes, "the header extensions");
  bytes.insert(bytes.end(), between.begin(), between.end());
  read_extensions(path, bytes, header_bytes, kind->swapped, info);
  opened.extensions_missing = bytes.size() == header_bytes + kExtender && bytes[header_bytes] != std::byte{0};
  opened.header = std::make_shared<SourceHeader>(SourceHeader{info.format, std::move(bytes)});
  opened.voxels = std::move(source);
  return opened;
}

void write_nifti(const Sink& sink, const std::filesystem::path& path, const Volume& v,
                 const std::map<int, std::string>& label_names) {
  const auto code = nifti_code(v.dtype);
  if (!code)
    throw ArgumentError(path.string() + ": NIfTI has no voxel type " + std::string(name_of(v.dtype)) +
                        "; convert the volume to f32 first");
  const auto& [z, y, x] = v.geometry.shape;
  const int64_t longest = std::max({x, y, z, v.channels});
  if (longest > int64_t{1} << 31)
    throw ArgumentError(path.string() + ": an axis has " + std::to_string(longest) +
                        " voxels, expected at most 2147483648");

  NiftiHeader h;
  const auto source = unchanged_source(path, v);
  bool vector_axis = false;
  if (source) {
    const bool same_channels = nifti_channels(*source) == v.channels;
    h = *source;
    vector_axis = same_channels && v.channels > 1 && source->dim[0] >= 5 && source->dim[5] == v.channels;
    if (!vector_axis) h.intent_code = 0;  // says what the source's numbers mean, not what ours do
    for (size_t i = 4; i < 8; ++i)
      if (!same_channels || !std::isfinite(h.pixdim[i])) h.pixdim[i] = 1;
    // A form that was not in use may hold anything.
    const auto all_finite = [](const auto& values) {
      return std::all_of(values.begin(), values.end(), [](double d) { return std::isfinite(d); });
    };
    if (!std::all_of(h.srow.begin(), h.srow.end(), all_finite)) h.srow = {}, h.sform_code = 0;
    if (!all_finite(h.quatern) || !all_finite(h.qoffset) || !all_finite(std::span(h.pixdim).first(4))) {
      h.quatern = h.qoffset = {0, 0, 0}, h.qform_code = 0;
      const auto spacing = v.geometry.spacing_mm();
      std::copy_n(std::array{1.0, spacing[2], spacing[1], spacing[0]}.begin(), 4, h.pixdim.begin());
    }
    std::string form, note;
    FOVEA_CHECK(nifti_geometry(path, h, form, note).affine == v.geometry.affine,
                "the header of " + path.string() + " would move the volume");
  } else {
    set_nifti_geometry(h, v.geometry);
  }
  if (longest > 32767) h.version = 2;
  h.dim = {vector_axis ? 5 : v.channels > 1 ? 4 : 3,
           x,
           y,
           z,
           vector_axis ? 1 : v.channels,
           vector_axis ? v.channels : 1,
           1,
           1};
  h.datatype = *code, h.bitpix = int64_t(size_of(v.dtype)) * 8;
  h.slope = 1, h.inter = 0;

  std::vector<std::byte> extension;
  if (!label_names.empty()) {
    const std::string xml = label_table_xml(label_names);
    extension.resize((8 + xml.size() + 15) / 16 * 16);
    const int32_t fields[2] = {int32_t(extension.size()), kLabelTableCode};
    std::memcpy(extension.data(), fields, sizeof fields);
    std::memcpy(extension.data() + sizeof fields, xml.data(), xml.size());
  }
  h.vox_offset = double(size_t(h.size_in_file()) + kExtender + extension.size());
  std::array<std::byte, kExtender> extender{};
  extender[0] = std::byte(!extension.empty());
  sink(encode_nifti(h));
  sink(extender);
  sink(extension);
  sink(v.data);
}

}  // namespace fovea::io
