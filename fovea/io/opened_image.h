#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "fovea/io/byte_source.h"
#include "fovea/io/image.h"

namespace fovea::io {

/// A file whose header is read and checked, standing at its first voxel: what each format's opener hands to image.cpp.
struct OpenedImage {
  ImageInfo info;
  std::shared_ptr<const SourceHeader> header;
  std::vector<std::unique_ptr<InputFile>> files;  // kept open for `voxels`, if the caller does not
  std::unique_ptr<ByteSource> voxels;
  bool channels_fastest = false;  // NRRD: [Z, Y, X, channels] in the file
  bool extensions_missing = false;  // NIfTI: announced, but the voxels begin where they would stand

  uint64_t stored_bytes() const { return uint64_t(info.channels * info.geometry.voxels()) * size_of(info.stored); }
};

/// read_image() and inspect() of a file that is open already or in memory. DICOM, which another process decodes, is found by
/// its path.
Volume read_image(const InputFile& file, const ReadOptions& options = {});
ImageInfo inspect(const InputFile& file, const ReadOptions& options = {});

/// `source` stands at byte 0 of an (inflated) NIfTI file; `file` must live as long as the result.
OpenedImage open_nifti(const InputFile& file, std::unique_ptr<ByteSource> source, bool compressed);
OpenedImage open_nrrd(const InputFile& file);
/// A folder or a file of DICOM, decoded by a process of its own; `voxels` may be read only when asked for here.
OpenedImage open_dicom(const std::filesystem::path& path, const ReadOptions& options, bool with_voxels);

/// What the line says that the DICOM reader begins with, shape and type checked. Errors: IoError.
ImageInfo parse_dicom_head(const std::filesystem::path& path, std::string_view line);

/// Takes the bytes of a file in order.
using Sink = std::function<void(std::span<const std::byte>)>;
/// Header, extensions and voxels of a NIfTI file to `sink`.
void write_nifti(const Sink& sink, const std::filesystem::path& path, const Volume& volume,
                 const std::map<int, std::string>& label_names);
/// The header of an attached NRRD file, up to and with the blank line; voxels follow raw or as one gzip stream.
std::string nrrd_header_text(const std::filesystem::path& path, const Volume& volume, bool gzip,
                             const std::map<int, std::string>& label_names);

/// channels x Z x Y x X, each at least 1, without overflow and below 2^60 bytes, or IoError.
void check_voxel_count(const std::filesystem::path& path, int64_t channels, const Geometry& geometry, DType dtype);

}  // namespace fovea::io
