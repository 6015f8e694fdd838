#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fovea/core/dtype.h"
#include "fovea/core/geometry.h"

class DcmFileFormat;
class DcmItem;

namespace fovea::reader {

/// One image plane of a DICOM file: a whole file, or a frame of an enhanced one.
struct DicomPlane {
  size_t file = 0;
  uint32_t frame = 0;
  Point position{};                        // of the first voxel's centre, mm, LPS
  std::array<double, 6> orientation{};     // of a row, then of a column; LPS
  std::array<double, 2> spacing{};         // between rows, between columns; mm
  double slope = 1, intercept = 0;
};

struct DicomOptions {
  int64_t series = -1;           // SeriesNumber, where a folder holds more than one; -1: the only one
  bool suv = false;              // PET: standardised uptake values by body weight
  uint64_t max_bytes = 0;        // of decoded voxels
};

/// The planes of one series, in order along their normal, checked before a voxel is decoded.
///
/// path     a folder (its DICOM images of one series; other files are left aside with a note), or one DICOM file
/// Grid     from ImagePositionPatient, ImageOrientationPatient and PixelSpacing alone, turned to RAS+; a series whose
///          planes are not evenly spaced, or lie twice in one place, is refused: nothing is interpolated or guessed.
///          A gantry tilt is kept as shear.
/// Voxels   RescaleSlope and RescaleIntercept of each plane: int16 where every value fits, else int32, else float32.
/// Errors   IoError in one line.
class DicomSeries {
 public:
  DicomSeries(const std::filesystem::path& path, const DicomOptions& options);
  ~DicomSeries();

  const Geometry& geometry() const { return geometry_; }
  DType dtype() const { return dtype_; }
  const std::string& modality() const { return modality_; }
  /// "HU", "BQML", "SUV", ... or empty.
  const std::string& units() const { return units_; }
  /// What one unit is in SUV by body weight, if the header says enough.
  const std::optional<double>& suv_per_unit() const { return suv_per_unit_; }
  const std::vector<std::string>& notes() const { return notes_; }
  uint64_t file_bytes() const { return file_bytes_; }
  /// Plane `z` as dtype(), [Y, X]. Errors: IoError for missing bytes or an unknown compression.
  std::vector<std::byte> plane(int64_t z);

 private:
  struct File;
  void open(const std::filesystem::path& path, int64_t series);
  void read_planes(size_t file);
  void arrange();
  void choose_dtype(bool suv);
  std::vector<int32_t> stored_values(size_t file, uint32_t frame);

  std::filesystem::path path_;
  std::vector<File> files_;
  std::vector<DicomPlane> planes_;
  Geometry geometry_;
  DType dtype_ = DType::kI16;
  std::string modality_, units_;
  std::optional<double> suv_per_unit_;
  double factor_ = 1;  // on the rescaled values
  std::vector<std::string> notes_;
  uint64_t file_bytes_ = 0;
};

}  // namespace fovea::reader
