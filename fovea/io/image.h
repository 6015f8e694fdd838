#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fovea/core/volume.h"

namespace fovea::io {

/// 8 GiB, or the environment variable FOVEA_MAX_DECODED_BYTES.
uint64_t default_max_decoded_bytes();

struct ReadOptions {
  /// Largest image taken, in bytes of decoded voxels: a few kilobytes of gzip may otherwise ask for terabytes.
  uint64_t max_decoded_bytes = default_max_decoded_bytes();
  /// Where remarks about odd but readable files go; null: to stderr, as "warning: FILE: ...".
  std::vector<std::string>* notes = nullptr;
  /// DICOM: SeriesNumber, where a folder holds several series; -1: the only one.
  int64_t dicom_series = -1;
  /// DICOM PET: standardised uptake values by body weight (g/ml) instead of activities.
  bool suv = false;
};

/// Reads a volume; the format is recognised by content, not by name.
///   NIfTI-1/2 in one file (.nii, .nii.gz; either byte order), NRRD (.nrrd, or .nhdr with its data file; raw or gzip),
///   DICOM: a folder with one series, or one (enhanced) file; uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000.
/// Geometry of NIfTI: sform if sform_code > 0, else qform if qform_code > 0, else pixdim alone (with a note). Of NRRD:
///          space directions and origin, turned to RAS+. Of DICOM: position and orientation of the planes, which must be
///          evenly spaced. Metres and micrometres become millimetres. Shear is kept.
/// Voxels   stored type when scl_slope/scl_inter change nothing, else f32 of slope * x + inter. A 4th axis (or a 5th
///          with a 4th of 1, as in vector NIfTI) becomes channels.
/// Errors   IoError in one line, for everything that does not add up: missing bytes, damaged gzip, fields out of range,
///          NaN in scale or affine, singular affine, unsupported types (by name), more than options.max_decoded_bytes.
/// Cost     memory follows the bytes present, never the header's word; one pass.
Volume read_image(const std::filesystem::path& path, const ReadOptions& options = {});

/// A DICOM file, or a folder that holds one: for telling a scan from other folders. Looks at four bytes of a file.
bool is_dicom(const std::filesystem::path& path);

/// What a header says, read without the voxels.
struct ImageInfo {
  std::string format;  // "nifti1", "nifti2", "nrrd", "dicom"
  Geometry geometry;
  int64_t channels = 1;
  DType stored = DType::kF32;  // as in the file
  DType dtype = DType::kF32;   // as read_image gives it
  double slope = 1, inter = 0;
  bool big_endian = false;
  bool compressed = false;
  std::string affine_source;               // "sform", "qform", "pixdim", "space directions", "spacings", "plane positions", "none"
  std::map<int, std::string> label_names;  // from a label table in the header
  std::map<int, int> extensions;           // NIfTI: code -> bytes (no content: it may name a patient)
  std::string modality, units;           // DICOM: "CT" and "HU", "PT" and "BQML", ...
  std::optional<double> suv_per_unit;    // DICOM PET, if its header says enough
  std::vector<std::string> notes;
  uint64_t file_bytes = 0;
};

/// Header facts for `fovea info`. Errors: as read_image, but voxels that are missing at the end are only noticed in
/// uncompressed files.
ImageInfo inspect(const std::filesystem::path& path, const ReadOptions& options = {});

struct WriteOptions {
  /// gzip level for .nii.gz (1-9) and .nrrd (0 = raw).
  int compression_level = 4;
  /// Names of label values, put into the file: a NIfTI extension with the LabelTable that TotalSegmentator, Connectome
  /// Workbench and 3D Slicer read, or Slicer's Segment keys in NRRD.
  std::map<int, std::string> label_names;
};

/// Writes .nii, .nii.gz or .nrrd, chosen by name; the file appears whole or not at all, and equal volumes give equal
/// files. If volume.header is present and the geometry is still that of the header, the source's grid is restored bit
/// for bit: NIfTI pixdim, qform, sform, their codes and units; NRRD space, directions and origin. Otherwise both sform
/// and, for an unsheared affine, qform are made from the affine. Everything else in the header that could name a
/// patient (description, auxiliary file, intent name, extensions, key/value pairs, unused bytes) is left empty.
/// Errors   ArgumentError: unknown ending, type the format lacks (f16, bf16), data that does not match the shape,
///          singular affine. ResourceError: disk.
void write_image(const std::filesystem::path& path, const Volume& volume, const WriteOptions& options = {});

}  // namespace fovea::io
