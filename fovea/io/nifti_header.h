#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fovea/core/dtype.h"
#include "fovea/core/geometry.h"

namespace fovea::io {

/// The fields of a NIfTI-1 or NIfTI-2 header that mean something to us, in the widest type of the two versions.
/// Source   nifti.nimh.nih.gov, nifti1.h and nifti2.h (field offsets).
struct NiftiHeader {
  int version = 1;
  int64_t header_size = 348;
  std::array<int64_t, 8> dim{3, 1, 1, 1, 1, 1, 1, 1};
  std::array<double, 8> pixdim{1, 1, 1, 1, 1, 1, 1, 1};  // [0] is qfac
  int64_t datatype = 0, bitpix = 0;
  double vox_offset = 0, slope = 1, inter = 0;
  int64_t qform_code = 0, sform_code = 0;
  std::array<double, 3> quatern{0, 0, 0}, qoffset{0, 0, 0};  // b c d; x y z
  std::array<std::array<double, 4>, 3> srow{};
  int64_t xyzt_units = 2, intent_code = 0, dim_info = 0;
  std::array<char, 8> magic{};

  int64_t size_in_file() const { return version == 1 ? 348 : 540; }
};

/// What the first four bytes of a file say: a NIfTI of this version and byte order, or nothing.
struct NiftiKind {
  int version;
  bool swapped;
};
std::optional<NiftiKind> nifti_kind(std::span<const std::byte> start);

/// Fields of `bytes` (at least size_in_file() of them); no checks.
NiftiHeader decode_nifti(std::span<const std::byte> bytes, NiftiKind kind);
/// Little-endian header; every byte that is no field of NiftiHeader is 0.
std::vector<std::byte> encode_nifti(const NiftiHeader& header);

/// Throws IoError for the first field that makes no sense: magic, dim, datatype and bitpix, vox_offset, scale.
void check_nifti(const std::filesystem::path& path, const NiftiHeader& header);

/// The header's grid in RAS+ millimetres. `source` names the field that was used, `note` is set when the reader should
/// be told.
/// Errors   IoError: not finite or singular.
Geometry nifti_geometry(const std::filesystem::path& path, const NiftiHeader& header, std::string& source,
                        std::string& note);

/// Fills pixdim, sform and, if the affine has no shear, qform from `geometry`, in millimetres.
void set_nifti_geometry(NiftiHeader& header, const Geometry& geometry);

/// dim[4], or dim[5] when dim[4] is 1 (vector images).
int64_t nifti_channels(const NiftiHeader& header);

/// NIfTI code of a voxel type and back; nothing where NIfTI or Fovea lacks it.
std::optional<int64_t> nifti_code(DType dtype);
std::optional<DType> nifti_dtype(int64_t code);

}  // namespace fovea::io
