#include "fovea/io/image.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fovea/core/error.h"
#include "fovea/io/nifti_header.h"
#include "fovea/io/opened_image.h"

namespace fovea::io {

namespace fs = std::filesystem;

namespace {

// A whole image is never followed by much; more is a small file that unpacks to a huge tail.
constexpr uint64_t kMaxTrailing = uint64_t{64} << 20;

bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

// What else people try to open.
std::string guess(std::span<const std::byte> start) {
  const std::string expected = ", expected NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or DICOM";
  if (start.empty()) return "is empty" + expected;
  if (starts_with(start, "PK\003\004")) return "is a zip archive" + expected;
  if (starts_with(start, "ObjectType")) return "is a MetaImage header" + expected;
  if (starts_with(start, "\211HDF")) return "is an HDF5 (MINC?) file" + expected;
  return "is of no known image format" + expected;
}

OpenedImage open_image(const InputFile& file, const ReadOptions& options, bool with_voxels) {
  const fs::path& path = file.path();
  std::vector<std::byte> start(std::min<uint64_t>(file.size(), 132));
  file.read_at(0, start);
  if (start.size() >= 132 && starts_with(std::span(start).subspan(128), "DICM")) return open_dicom(path, options, with_voxels);
  if (options.suv || options.dicom_series >= 0) throw IoError(path, "is no DICOM file or folder, expected one for a series or for SUV");
  if (starts_with(start, "NRRD")) return open_nrrd(file);
  if (nifti_kind(start)) return open_nifti(file, std::make_unique<RawSource>(file), /*compressed=*/false);
  if (starts_with(start, "\x1f\x8b")) {
    std::vector<std::byte> inside(4);
    inside.resize(GzipSource(file).read_some(inside));
    if (!nifti_kind(inside))
      throw IoError(path, "is a gzip file with something else than NIfTI inside, expected .nii.gz");
    return open_nifti(file, std::make_unique<GzipSource>(file), /*compressed=*/true);
  }
  throw IoError(path, guess(start));
}

OpenedImage open_image(const fs::path& path, const ReadOptions& options, bool with_voxels) {
  if (fs::is_directory(path)) return open_dicom(path, options, with_voxels);
  auto file = std::make_unique<InputFile>(path);
  OpenedImage opened = open_image(*file, options, with_voxels);
  opened.files.push_back(std::move(file));
  return opened;
}

void check_limit(const fs::path& path, const OpenedImage& opened, uint64_t limit) {
  const uint64_t voxels = uint64_t(opened.info.channels * opened.info.geometry.voxels());
  const uint64_t bytes = voxels * std::max(size_of(opened.info.stored), size_of(opened.info.dtype));
  if (bytes > limit)
    throw IoError(path, "the header asks for " + std::to_string(bytes) + " bytes of voxels, more than the limit of " +
                            std::to_string(limit) +
                            "; if that is right, set the environment variable FOVEA_MAX_DECODED_BYTES");
}

void report(const fs::path& path, const std::vector<std::string>& notes, const ReadOptions& options) {
  for (const std::string& note : notes) {
    if (options.notes)
      options.notes->push_back(note);
    else
      std::fprintf(stderr, "warning: %s: %s\n", path.c_str(), note.c_str());
  }
}

void swap_bytes(std::vector<std::byte>& data, size_t width) {
  const auto swap_as = [&](auto zero, auto swap) {
    using T = decltype(zero);
    for (size_t i = 0; i + sizeof(T) <= data.size(); i += sizeof(T)) {
      T value;
      std::memcpy(&value, data.data() + i, sizeof value);
      value = swap(value);
      std::memcpy(data.data() + i, &value, sizeof value);
    }
  };
  if (width == 2) swap_as(uint16_t{}, [](uint16_t v) { return __builtin_bswap16(v); });
  if (width == 4) swap_as(uint32_t{}, [](uint32_t v) { return __builtin_bswap32(v); });
  if (width == 8) swap_as(uint64_t{}, [](uint64_t v) { return __builtin_bswap64(v); });
}

// [voxels, channels] to [channels, voxels].
std::vector<std::byte> channels_first(const std::vector<std::byte>& data, size_t channels, size_t width) {
  std::vector<std::byte> out(data.size());
  const size_t voxels = data.size() / (channels * width);
  for (size_t c = 0; c < channels; ++c)
    for (size_t i = 0; i < voxels; ++i)
      std::memcpy(&out[(c * voxels + i) * width], &data[(i * channels + c) * width], width);
  return out;
}

std::vector<std::byte> scaled(const std::vector<std::byte>& data, DType stored, double slope, double inter) {
  return visit_dtype(stored, [&](auto zero) {
    using T = decltype(zero);
    const size_t n = data.size() / sizeof(T);
    std::vector<std::byte> out(n * sizeof(float));
    const T* from = reinterpret_cast<const T*>(data.data());
    float* to = reinterpret_cast<float*>(out.data());
    for (size_t i = 0; i < n; ++i) to[i] = float(slope * double(from[i]) + inter);
    return out;
  });
}

}  // namespace

uint64_t default_max_decoded_bytes() {
  constexpr uint64_t standard = uint64_t{8} << 30;
  const char* text = std::getenv("FOVEA_MAX_DECODED_BYTES");
  if (!text) return standard;
  uint64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end)
    throw ArgumentError("FOVEA_MAX_DECODED_BYTES is \"" + std::string(text) + "\", expected a number of bytes");
  return value;
}

void check_voxel_count(const fs::path& path, int64_t channels, const Geometry& g, DType dtype) {
  int64_t bytes = int64_t(size_of(dtype));
  for (const int64_t n : {channels, g.shape[0], g.shape[1], g.shape[2]}) {
    if (n < 1) throw IoError(path, "the header gives " + std::to_string(n) + " as a size, expected at least 1");
    if (__builtin_mul_overflow(bytes, n, &bytes) || bytes > int64_t{1} << 60)
      throw IoError(path, "the header asks for " + std::to_string(g.shape[2]) + "x" + std::to_string(g.shape[1]) + "x" +
                              std::to_string(g.shape[0]) + " voxels and " + std::to_string(channels) +
                              " channels, more than any file holds");
  }
}

namespace {
Volume read_voxels(const fs::path& path, OpenedImage opened, const ReadOptions& options) {
  ImageInfo& info = opened.info;
  check_limit(path, opened, options.max_decoded_bytes);

  Volume v{info.geometry, info.channels, info.stored, opened.voxels->read_block(opened.stored_bytes(), "the voxels"),
           opened.header};
  // To the very end: that is where gzip keeps its checksum.
  if (const uint64_t trailing = opened.voxels->drain(kMaxTrailing)) {
    // As many bytes too many as the extensions take: read as voxels they would be a silent shift, and may name a patient.
    if (opened.extensions_missing)
      throw IoError(path, "announces header extensions, but its voxels begin where they would stand and " + std::to_string(trailing) + " bytes follow the voxels; vox_offset is wrong");
    info.notes.push_back(std::to_string(trailing) + " bytes follow the voxels and are ignored");
  }
  if (const auto* gzip = dynamic_cast<const GzipSource*>(opened.voxels.get()); gzip && gzip->garbage() > 0)
    info.notes.push_back(std::to_string(gzip->garbage()) + " bytes follow the gzip stream and are ignored");
  report(path, info.notes, options);

  if (info.big_endian) swap_bytes(v.data, size_of(info.stored));
  if (opened.channels_fastest) v.data = channels_first(v.data, size_t(v.channels), size_of(v.dtype));
  if (info.slope != 1 || info.inter != 0)
    v.data = scaled(v.data, info.stored, info.slope, info.inter), v.dtype = DType::kF32;
  return v;
}

ImageInfo checked_info(const fs::path& path, OpenedImage opened, const ReadOptions& options) {
  check_limit(path, opened, options.max_decoded_bytes);
  if (opened.stored_bytes() > opened.voxels->at_most())
    throw IoError(path, "the voxels need " + std::to_string(opened.stored_bytes()) + " bytes, found at most " +
                            std::to_string(opened.voxels->at_most()) + "; the file is truncated");
  return std::move(opened.info);
}
}  // namespace

Volume read_image(const fs::path& path, const ReadOptions& options) { return read_voxels(path, open_image(path, options, /*with_voxels=*/true), options); }
Volume read_image(const InputFile& file, const ReadOptions& options) { return read_voxels(file.path(), open_image(file, options, /*with_voxels=*/true), options); }

ImageInfo inspect(const fs::path& path, const ReadOptions& options) { return checked_info(path, open_image(path, options, /*with_voxels=*/false), options); }
ImageInfo inspect(const InputFile& file, const ReadOptions& options) { return checked_info(file.path(), open_image(file, options, /*with_voxels=*/false), options); }

void write_image(const fs::path& path, const Volume& v, const WriteOptions& options) {
  const std::string name = path.filename().string();
  const bool nifti_gz = name.ends_with(".nii.gz"), nifti = name.ends_with(".nii"), nrrd = name.ends_with(".nrrd");
  if (!nifti_gz && !nifti && !nrrd)
    throw ArgumentError(path.string() + ": unknown image ending, expected .nii.gz, .nii or .nrrd");
  if (options.compression_level < (nifti_gz ? 1 : 0) || options.compression_level > 9)
    throw ArgumentError(path.string() + ": compression level " + std::to_string(options.compression_level) +
                        ", expected 1 to 9" + (nrrd ? ", or 0 for raw" : ""));
  const bool good_shape =
      v.channels > 0 && v.geometry.shape[0] > 0 && v.geometry.shape[1] > 0 && v.geometry.shape[2] > 0;
  if (!good_shape || v.data.size() != size_t(v.size()) * size_of(v.dtype))
    throw ArgumentError(path.string() + ": " + std::to_string(v.data.size()) + " bytes of voxels do not fit " +
                        std::to_string(v.channels) + " channel(s) of " + to_string(v.geometry) + " as " +
                        std::string(name_of(v.dtype)));
  if (v.geometry.is_singular())
    throw ArgumentError(path.string() + ": the affine is singular; " + to_string(v.geometry));

  AtomicFile file(path);
  const Sink plain = [&](std::span<const std::byte> bytes) { file.write(bytes.data(), bytes.size()); };
  if (nifti) {
    write_nifti(plain, path, v, options.label_names);
  } else if (nifti_gz) {
    GzipWriter gzip(file, options.compression_level);
    write_nifti([&](std::span<const std::byte> bytes) { gzip.write(bytes); }, path, v, options.label_names);
    gzip.finish();
  } else {
    const bool packed = options.compression_level > 0;
    file.write(nrrd_header_text(path, v, packed, options.label_names));
    if (packed) {
      GzipWriter gzip(file, options.compression_level);
      gzip.write(v.data);
      gzip.finish();
    } else {
      plain(v.data);
    }
  }
  file.commit();
}

}  // namespace fovea::io
