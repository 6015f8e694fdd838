#include <algorithm>
#include <charconv>
#include <iterator>
#include <sstream>

#include "fovea/core/error.h"
#include "fovea/io/nrrd_header.h"
#include "fovea/io/opened_image.h"

namespace fovea::io {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxHeader = size_t{16} << 20;

// Bytes up to the blank line that ends the header; `voxels_at` is the byte after it. A detached header may end with its
// file.
std::string read_header_text(const InputFile& file, uint64_t& voxels_at) {
  std::string text;
  size_t line_start = 0;
  while (true) {
    for (size_t end; (end = text.find('\n', line_start)) != text.npos; line_start = end + 1) {
      const std::string_view line(text.data() + line_start, end - line_start);
      if (line.empty() || line == "\r") {
        voxels_at = end + 1;
        text.resize(line_start);
        return text;
      }
    }
    if (text.size() - line_start > 65536)
      throw IoError(file.path(),
                    "a header line from byte " + std::to_string(line_start) + " on is longer than 65536 bytes");
    if (text.size() >= kMaxHeader)
      throw IoError(file.path(), "the header is longer than " + std::to_string(kMaxHeader) + " bytes");
    const size_t had = text.size();
    text.resize(had + std::min<uint64_t>(16384, file.size() - had));
    text.resize(had + file.read_some_at(had, std::as_writable_bytes(std::span(text).subspan(had))));
    if (text.size() == had) break;
  }
  voxels_at = text.size();
  return text;
}

// The data file beside a detached header. Nothing in a header may name a file outside the header's own folder.
fs::path inside_folder(const fs::path& header, const std::string& name) {
  const fs::path asked(name);
  const std::string refusal = "data file \"" + name.substr(0, 60) + "\" ";
  const bool climbs = std::find(asked.begin(), asked.end(), fs::path("..")) != asked.end();
  if (asked.is_absolute() || climbs || name.find('\0') != name.npos)
    throw IoError(header, refusal + "leaves the folder of the header, expected a name inside it");
  std::error_code error;
  const fs::path folder = fs::canonical(header.has_parent_path() ? header.parent_path() : fs::path("."), error);
  if (error) throw IoError(header, "the folder cannot be resolved: " + error.message());
  const fs::path found = fs::canonical(folder / asked, error);
  if (error) throw IoError(header, refusal + "is not there");
  if (std::mismatch(folder.begin(), folder.end(), found.begin(), found.end()).first != folder.end())
    throw IoError(header, refusal + "is a link that leaves the folder of the header");
  return found;
}

// 3D Slicer's convention: SegmentN_LabelValue and SegmentN_Name.
std::map<int, std::string> segment_names(const std::map<std::string, std::string>& key_values) {
  std::map<int, std::string> names;
  constexpr std::string_view suffix = "_LabelValue";
  for (const auto& [key, text] : key_values) {
    if (!key.starts_with("Segment") || !key.ends_with(suffix)) continue;
    const auto name = key_values.find(key.substr(0, key.size() - suffix.size()) + "_Name");
    int label = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), label);
    if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() && name != key_values.end())
      names[label] = name->second;
  }
  return names;
}

std::string shortest(double value) {
  char text[40];
  return std::string(text, std::to_chars(text, text + sizeof text, value + 0.0).ptr);
}

std::string_view nrrd_type(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kU8:
      return "uint8";
    case DType::kI8:
      return "int8";
    case DType::kU16:
      return "uint16";
    case DType::kI16:
      return "int16";
    case DType::kU32:
      return "uint32";
    case DType::kI32:
      return "int32";
    case DType::kU64:
      return "uint64";
    case DType::kI64:
      return "int64";
    case DType::kF32:
      return "float";
    case DType::kF64:
      return "double";
    default:
      return "";
  }
}

}  // namespace

OpenedImage open_nrrd(const InputFile& file) {
  const fs::path& path = file.path();
  uint64_t voxels_at = 0;
  const std::string text = read_header_text(file, voxels_at);
  NrrdHeader h = parse_nrrd_header(path, text);

  OpenedImage opened;
  ImageInfo& info = opened.info;
  info.format = "nrrd";
  info.geometry = h.geometry, info.channels = h.channels;
  info.stored = info.dtype = h.dtype;
  info.big_endian = h.big_endian, info.compressed = h.gzip;
  info.affine_source = h.affine_source;
  info.label_names = segment_names(h.key_values);
  info.notes = std::move(h.notes);
  info.file_bytes = file.size();
  opened.channels_fastest = h.channels_fastest && h.channels > 1;
  check_voxel_count(path, info.channels, info.geometry, info.stored);

  const std::byte* bytes = reinterpret_cast<const std::byte*>(text.data());
  opened.header = std::make_shared<SourceHeader>(SourceHeader{"nrrd", {bytes, bytes + text.size()}});
  if (!h.data_file.empty()) {
    opened.files.push_back(std::make_unique<InputFile>(inside_folder(path, h.data_file)));
    const uint64_t present = opened.files.back()->size(), needed = opened.stored_bytes();
    if (h.byte_skip == -1 && needed > present)
      throw IoError(path, "the data file holds " + std::to_string(present) + " bytes, expected at least " +
                              std::to_string(needed));
    voxels_at = h.byte_skip == -1 ? present - needed : uint64_t(h.byte_skip);
    info.file_bytes += present;
  }
  const InputFile& data = opened.files.empty() ? file : *opened.files.back();
  if (h.gzip)
    opened.voxels = std::make_unique<GzipSource>(data, voxels_at);
  else
    opened.voxels = std::make_unique<RawSource>(data, voxels_at);
  return opened;
}

std::string nrrd_header_text(const fs::path& path, const Volume& v, bool gzip,
                             const std::map<int, std::string>& label_names) {
  const std::string_view type = nrrd_type(v.dtype);
  if (type.empty())
    throw ArgumentError(path.string() + ": NRRD has no voxel type " + std::string(name_of(v.dtype)) +
                        "; convert the volume to f32 first");
  // The source's own words for the grid, if the volume still lies on it.
  NrrdHeader source;
  if (v.header && v.header->format == "nrrd") {
    source = parse_nrrd_header(path, {reinterpret_cast<const char*>(v.header->bytes.data()), v.header->bytes.size()});
    if (source.geometry.shape != v.geometry.shape || source.geometry.affine != v.geometry.affine) source = {};
  }
  const bool channels = v.channels > 1;
  const auto& [z, y, x] = v.geometry.shape;
  std::string text = "NRRD0004\ntype: " + std::string(type) + "\ndimension: " + (channels ? "4" : "3");
  text += "\nsizes: " + std::to_string(x) + " " + std::to_string(y) + " " + std::to_string(z) +
          (channels ? " " + std::to_string(v.channels) : "");
  text += std::string("\nkinds: domain domain domain") + (channels ? " list" : "");

  const auto carry = [&](const char* field) {
    const auto found = source.fields.find(field);
    if (found != source.fields.end()) text += std::string("\n") + field + ": " + found->second;
  };
  if (!source.fields.empty()) {
    carry("space"), carry("space dimension"), carry("space units"), carry("space origin");
    if (source.affine_source == "space directions") {
      // Same vectors; the channel axis, which has none, is last in what we write.
      std::string_view directions = source.fields.at("space directions");
      text += "\nspace directions:";
      for (size_t open = directions.find('('); open != directions.npos; open = directions.find('(', open + 1))
        text += " " + std::string(directions.substr(open, directions.find(')', open) - open + 1));
      text += channels ? " none" : "";
    } else if (source.affine_source == "spacings") {
      std::istringstream all(source.fields.at("spacings"));
      std::vector<std::string> spacings{std::istream_iterator<std::string>(all), {}};
      if (spacings.size() == 4) spacings.erase(source.channels_fastest ? spacings.begin() : spacings.end() - 1);
      text += "\nspacings: " + spacings[0] + " " + spacings[1] + " " + spacings[2] + (channels ? " nan" : "");
    }
  } else {
    // RAS to LPS, the space that ITK and Slicer write.
    const auto& m = v.geometry.affine;
    const auto vector = [&](size_t c) {
      return " (" + shortest(-m[0][c]) + "," + shortest(-m[1][c]) + "," + shortest(m[2][c]) + ")";
    };
    text += "\nspace: left-posterior-superior\nspace directions:" + vector(0) + vector(1) + vector(2) +
            (channels ? " none" : "") + "\nspace origin:" + vector(3);
  }
  if (size_of(v.dtype) > 1) text += "\nendian: little";
  text += std::string("\nencoding: ") + (gzip ? "gzip" : "raw") + "\n";
  int n = 0;
  for (const auto& [label, name] : label_names) {
    const std::string key = "Segment" + std::to_string(n++);
    std::string one_line = name;
    std::replace_if(
        one_line.begin(), one_line.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
    text += key + "_ID:=" + key + "\n" + key + "_Name:=" + one_line + "\n" + key +
            "_LabelValue:=" + std::to_string(label) + "\n" + key + "_Layer:=0\n";
  }
  const Geometry written = parse_nrrd_header(path, text).geometry;
  FOVEA_CHECK(written.shape == v.geometry.shape && written.affine == v.geometry.affine,
              "the header of " + path.string() + " would move the volume");
  return text + "\n";
}

}  // namespace fovea::io
