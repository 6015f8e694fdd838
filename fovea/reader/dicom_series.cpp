#include "fovea/reader/dicom_series.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcpixel.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dcrledrg.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpls/djdecode.h>
#include <dcmtk/oflog/oflog.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "fovea/core/error.h"
#include "fovea/io/image.h"
#include "fovea/reader/jpeg2000.h"
#include "fovea/reader/suv.h"

namespace fovea::reader {

namespace fs = std::filesystem;

struct DicomSeries::File {
  fs::path path;
  std::unique_ptr<DcmFileFormat> format;
  uint16_t rows = 0, columns = 0, bits_allocated = 0, bits_stored = 0;
  bool is_signed = false;
  uint32_t frames = 1;
  DcmDataset& dataset() const { return *format->getDataset(); }
};

namespace {
using Triple = std::array<double, 3>;

Triple cross(const Triple& a, const Triple& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
double dot(const Triple& a, const Triple& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

std::string printed(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

// N numbers of an attribute; false when it is not there.
template <size_t N>
bool numbers_of(const fs::path& path, DcmItem& item, const DcmTagKey& tag, std::array<double, N>& to) {
  if (!item.tagExists(tag)) return false;
  for (size_t i = 0; i < N; ++i)
    if (item.findAndGetFloat64(tag, to[i], i).bad() || !std::isfinite(to[i]))
      throw IoError(path, std::string(DcmTag(tag).getTagName()) + " is not " + std::to_string(N) + " number(s)");
  return true;
}

// Where a frame of an enhanced file keeps a group of attributes: with the frame, or shared by all; null if nowhere.
DcmItem* group_of(DcmItem& dataset, uint32_t frame, const DcmTagKey& group) {
  DcmItem *holder = nullptr, *item = nullptr;
  for (const auto& [sequence, at] : {std::pair{DCM_PerFrameFunctionalGroupsSequence, signed(frame)}, {DCM_SharedFunctionalGroupsSequence, 0}})
    if (dataset.findAndGetSequenceItem(sequence, holder, at).good() && holder->findAndGetSequenceItem(group, item).good()) return item;
  return nullptr;
}

void register_decoders() {
  OFLog::configure(OFLogger::OFF_LOG_LEVEL);  // what went wrong is said in one line, and names no patient
  DcmRLEDecoderRegistration::registerCodecs();
  DJDecoderRegistration::registerCodecs();
  DJLSDecoderRegistration::registerCodecs();
}
}  // namespace

DicomSeries::DicomSeries(const fs::path& path, const DicomOptions& options) : path_(path) {
  register_decoders();
  open(path, options.series);
  for (size_t f = 0; f < files_.size(); ++f) read_planes(f);
  arrange();
  const uint64_t bytes = uint64_t(geometry_.voxels()) * 4;
  if (bytes > options.max_bytes)
    throw IoError(path_, "the series asks for " + std::to_string(bytes) + " bytes of voxels, more than the limit of " + std::to_string(options.max_bytes) +
                             "; if that is right, set the environment variable FOVEA_MAX_DECODED_BYTES");
  DcmItem& first = files_[0].dataset();
  modality_ = text_of(first, DCM_Modality).substr(0, 2);
  units_ = modality_ == "PT" ? text_of(first, DCM_Units).substr(0, 8) : modality_ == "CT" ? "HU" : "";
  std::string problem = "its modality is \"" + modality_ + "\", expected PT";
  if (modality_ == "PT") {
    double earliest = std::numeric_limits<double>::infinity();
    for (const File& file : files_)
      if (const double second = seconds_of(text_of(file.dataset(), DCM_AcquisitionTime)); second >= 0) earliest = std::min(earliest, second);
    if (const double factor = suv_body_weight(first, std::isfinite(earliest) ? earliest : -1, problem)) suv_per_unit_ = factor;
  }
  if (options.suv) {
    if (!suv_per_unit_) throw IoError(path_, "no SUV can be computed: " + problem);
    factor_ = *suv_per_unit_, units_ = "SUV";
  }
  choose_dtype(options.suv);
}

DicomSeries::~DicomSeries() = default;

void DicomSeries::open(const fs::path& path, int64_t series) {
  std::vector<fs::path> candidates;
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.is_regular_file() && io::is_dicom(entry.path())) candidates.push_back(entry.path());
    if (candidates.empty()) throw IoError(path, "is a folder without a DICOM file; folders inside it are not searched");
    std::sort(candidates.begin(), candidates.end());
  } else {
    candidates = {path};
  }
  struct Series {
    std::string modality;
    int64_t number = 0;
    std::vector<File> files;
  };
  std::map<std::string, Series> found;  // by SeriesInstanceUID
  size_t without_image = 0;
  for (const fs::path& candidate : candidates) {
    File file{candidate, std::make_unique<DcmFileFormat>()};
    if (const OFCondition status = file.format->loadFile(candidate.c_str()); status.bad())
      throw IoError(candidate, std::string("is no whole DICOM file: ") + status.text());
    DcmDataset& d = file.dataset();
    if (d.findAndGetUint16(DCM_Rows, file.rows).bad() || d.findAndGetUint16(DCM_Columns, file.columns).bad() || !d.tagExists(DCM_PixelData)) {
      ++without_image;
      continue;
    }
    Series& s = found[text_of(d, DCM_SeriesInstanceUID)];
    s.modality = text_of(d, DCM_Modality).substr(0, 2);
    if (Sint32 number = 0; d.findAndGetSint32(DCM_SeriesNumber, number).good()) s.number = number;
    file_bytes_ += fs::file_size(candidate);
    s.files.push_back(std::move(file));
  }
  if (without_image > 0) notes_.push_back(std::to_string(without_image) + " DICOM file(s) without an image are left aside");
  if (found.empty()) throw IoError(path, "holds no DICOM image");
  auto chosen = found.begin();
  if (series >= 0) {
    chosen = std::find_if(found.begin(), found.end(), [&](const auto& s) { return s.second.number == series; });
    if (chosen == found.end()) throw IoError(path, "holds no series " + std::to_string(series));
  } else if (found.size() > 1) {
    std::string list;
    for (const auto& [uid, s] : found)
      list += (list.empty() ? "" : ", ") + std::to_string(s.number) + " (" + s.modality + ", " + std::to_string(s.files.size()) + " files)";
    throw IoError(path, "holds " + std::to_string(found.size()) + " series, expected one: " + list + "; take one out with `fovea import " + path.filename().string() + " --series N -o scan.nii.gz`");
  }
  files_ = std::move(chosen->second.files);
}

void DicomSeries::read_planes(size_t f) {
  File& file = files_[f];
  DcmDataset& d = file.dataset();
  uint16_t samples = 1, high_bit = 0, is_signed = 0;
  d.findAndGetUint16(DCM_SamplesPerPixel, samples);
  if (samples != 1) throw IoError(file.path, "is a colour image, expected one value a voxel");
  d.findAndGetUint16(DCM_BitsAllocated, file.bits_allocated), d.findAndGetUint16(DCM_BitsStored, file.bits_stored);
  d.findAndGetUint16(DCM_HighBit, high_bit), d.findAndGetUint16(DCM_PixelRepresentation, is_signed);
  file.is_signed = is_signed == 1;
  if (file.bits_allocated != 8 && file.bits_allocated != 16)
    throw IoError(file.path, "has " + std::to_string(file.bits_allocated) + " bits allocated for a voxel, expected 8 or 16");
  if (file.bits_stored < 1 || file.bits_stored > file.bits_allocated || high_bit + 1 != file.bits_stored)
    throw IoError(file.path, "BitsStored " + std::to_string(file.bits_stored) + " and HighBit " + std::to_string(high_bit) + " do not fit " + std::to_string(file.bits_allocated) + " bits");
  if (file.rows == 0 || file.columns == 0) throw IoError(file.path, "has no rows or no columns");
  Sint32 frames = 1;
  if (d.tagExists(DCM_NumberOfFrames)) d.findAndGetSint32(DCM_NumberOfFrames, frames);
  const bool enhanced = d.tagExists(DCM_PerFrameFunctionalGroupsSequence);
  if (frames < 1 || frames > 100000) throw IoError(file.path, "NumberOfFrames is " + std::to_string(frames));
  if (frames > 1 && !enhanced) throw IoError(file.path, "has " + std::to_string(frames) + " frames without a place of their own, expected a volume");
  file.frames = uint32_t(frames);

  for (uint32_t frame = 0; frame < file.frames; ++frame) {
    const auto item = [&](const DcmTagKey& group) -> DcmItem& {
      DcmItem* of_frame = enhanced ? group_of(d, frame, group) : nullptr;
      return of_frame ? *of_frame : d;
    };
    DicomPlane plane{f, frame};
    if (!numbers_of(file.path, item(DCM_PlanePositionSequence), DCM_ImagePositionPatient, plane.position) ||
        !numbers_of(file.path, item(DCM_PlaneOrientationSequence), DCM_ImageOrientationPatient, plane.orientation))
      throw IoError(file.path, "has no ImagePositionPatient or ImageOrientationPatient: where it lies in the patient is not known");
    if (!numbers_of(file.path, item(DCM_PixelMeasuresSequence), DCM_PixelSpacing, plane.spacing)) throw IoError(file.path, "has no PixelSpacing");
    std::array<double, 1> one{};
    DcmItem& values = item(DCM_PixelValueTransformationSequence);
    if (numbers_of(file.path, values, DCM_RescaleSlope, one)) plane.slope = one[0];
    if (numbers_of(file.path, values, DCM_RescaleIntercept, one)) plane.intercept = one[0];
    planes_.push_back(plane);
  }
}

void DicomSeries::arrange() {
  const DicomPlane& first = planes_[0];
  const Triple row{first.orientation[0], first.orientation[1], first.orientation[2]}, column{first.orientation[3], first.orientation[4], first.orientation[5]};
  const Triple normal = cross(row, column);
  if (std::abs(dot(row, row) - 1) > 1e-3 || std::abs(dot(column, column) - 1) > 1e-3 || std::abs(dot(row, column)) > 1e-3)
    throw IoError(files_[0].path, "ImageOrientationPatient is not two unit vectors at a right angle");
  if (!(first.spacing[0] > 0 && first.spacing[1] > 0)) throw IoError(files_[0].path, "PixelSpacing is not positive");
  for (const DicomPlane& p : planes_) {
    const File &a = files_[0], &b = files_[p.file];
    if (a.rows != b.rows || a.columns != b.columns)
      throw IoError(b.path, "has " + std::to_string(b.columns) + "x" + std::to_string(b.rows) + " voxels, the series' first file " + std::to_string(a.columns) + "x" + std::to_string(a.rows));
    for (size_t i = 0; i < 6; ++i)
      if (std::abs(p.orientation[i] - first.orientation[i]) > 1e-3) throw IoError(b.path, "lies in another direction than the series' first file");
    for (size_t i = 0; i < 2; ++i)
      if (std::abs(p.spacing[i] - first.spacing[i]) > 1e-3 * first.spacing[i]) throw IoError(b.path, "has another PixelSpacing than the series' first file");
  }
  std::stable_sort(planes_.begin(), planes_.end(), [&](const auto& a, const auto& b) { return dot(a.position, normal) < dot(b.position, normal); });

  const int64_t n = int64_t(planes_.size());
  Triple step{};
  if (n > 1) {
    std::vector<double> gaps;
    for (int64_t i = 1; i < n; ++i) gaps.push_back(dot(planes_[size_t(i)].position, normal) - dot(planes_[size_t(i - 1)].position, normal));
    auto sorted = gaps;
    const auto middle = sorted.begin() + std::ptrdiff_t(sorted.size() / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    const double usual = *middle;
    for (int64_t i = 1; i < n; ++i) {
      const double gap = gaps[size_t(i - 1)];
      const auto between = [&] { return files_[planes_[size_t(i - 1)].file].path.filename().string() + " and " + files_[planes_[size_t(i)].file].path.filename().string(); };
      if (gap < 1e-3) throw IoError(path_, between() + " lie in one place: several time points or echoes, or a file twice; expected one volume");
      if (std::abs(gap - usual) > 0.02 * usual + 0.01)
        throw IoError(path_, "the planes of " + between() + " are " + printed(gap) + " mm apart, the others " + printed(usual) + " mm: a plane is missing, or the spacing is uneven");
    }
    for (size_t a = 0; a < 3; ++a) step[a] = (planes_.back().position[a] - planes_.front().position[a]) / double(n - 1);
    for (const DicomPlane& p : planes_) {
      const double at = (&p - planes_.data());
      Triple off{};
      for (size_t a = 0; a < 3; ++a) off[a] = p.position[a] - planes_.front().position[a] - at * step[a];
      if (dot(off, off) > std::pow(0.02 * usual * 2 + 0.02, 2)) throw IoError(files_[p.file].path, "is shifted from the line of the other planes");
    }
  } else {
    std::array<double, 1> thick{};
    DcmItem& d = files_[0].dataset();
    if (!numbers_of(files_[0].path, d, DCM_SpacingBetweenSlices, thick) && !numbers_of(files_[0].path, d, DCM_SliceThickness, thick)) thick[0] = 0;
    if (!(thick[0] > 0)) thick[0] = 1;
    for (size_t a = 0; a < 3; ++a) step[a] = normal[a] * thick[0];
    notes_.push_back("one plane; its thickness is taken as the spacing. For the whole series, name its folder");
  }
  const auto& origin = planes_.front().position;
  geometry_.shape = {n, files_[0].rows, files_[0].columns};
  for (size_t a = 0; a < 3; ++a) {
    const double sign = a < 2 ? -1 : 1;  // LPS to RAS
    geometry_.affine[a] = {sign * row[a] * first.spacing[1], sign * column[a] * first.spacing[0], sign * step[a], sign * origin[a]};
    for (double& v : geometry_.affine[a]) v += 0.0;
  }
  if (geometry_.is_singular()) throw IoError(path_, "its planes do not span a volume");
}

void DicomSeries::choose_dtype(bool suv) {
  double low = 0, high = 0;
  bool integral = !suv;
  for (const DicomPlane& p : planes_) {
    const File& file = files_[p.file];
    const double most = std::exp2(file.bits_stored - (file.is_signed ? 1 : 0)) - 1, least = file.is_signed ? -most - 1 : 0;
    integral &= p.slope == std::round(p.slope) && p.intercept == std::round(p.intercept);
    for (const double end : {least, most}) low = std::min(low, p.slope * end + p.intercept), high = std::max(high, p.slope * end + p.intercept);
  }
  dtype_ = !integral ? DType::kF32 : low >= -32768 && high <= 32767 ? DType::kI16 : std::abs(low) < 2e9 && high < 2e9 ? DType::kI32 : DType::kF32;
}

std::vector<int32_t> DicomSeries::stored_values(size_t f, uint32_t frame) {
  File& file = files_[f];
  DcmDataset& d = file.dataset();
  const size_t n = size_t(file.rows) * file.columns;
  const E_TransferSyntax syntax = d.getOriginalXfer();
  std::vector<int32_t> out(n);
  const uint32_t mask = file.bits_stored == 32 ? ~0u : (1u << file.bits_stored) - 1, sign = 1u << (file.bits_stored - 1);
  const auto value_of = [&](uint32_t bits) {
    bits &= mask;
    return int32_t(file.is_signed && (bits & sign) ? bits | ~mask : bits);
  };
  if (syntax == EXS_JPEG2000LosslessOnly || syntax == EXS_JPEG2000) {
    DcmElement* element = nullptr;
    DcmPixelSequence* sequence = nullptr;
    d.findAndGetElement(DCM_PixelData, element);
    auto* pixels = dynamic_cast<DcmPixelData*>(element);
    if (!pixels || pixels->getEncapsulatedRepresentation(syntax, nullptr, sequence).bad() || !sequence) throw IoError(file.path, "its JPEG 2000 image is missing");
    std::vector<uint8_t> stream;
    const unsigned long items = sequence->card();
    const bool item_a_frame = items == file.frames + 1;  // the first is the offset table
    if (file.frames > 1 && !item_a_frame) throw IoError(file.path, "its frames are in fragments, expected one a frame");
    for (unsigned long i = item_a_frame ? frame + 1 : 1; i < (item_a_frame ? frame + 2 : items); ++i) {
      DcmPixelItem* item = nullptr;
      uint8_t* bytes = nullptr;
      if (sequence->getItem(item, i).bad() || item->getUint8Array(bytes).bad() || !bytes) throw IoError(file.path, "its JPEG 2000 image is damaged");
      stream.insert(stream.end(), bytes, bytes + item->getLength());
    }
    std::string problem;
    out = decode_jpeg2000(stream, file.rows, file.columns, problem);
    if (out.empty()) throw IoError(file.path, problem);
    for (int32_t& v : out) v = value_of(uint32_t(v));
    return out;
  }
  if (const OFCondition status = d.chooseRepresentation(EXS_LittleEndianExplicit, nullptr); status.bad())
    throw IoError(file.path, std::string("its voxels (") + DcmXfer(syntax).getXferName() + ") cannot be decoded: " + status.text());
  const auto take = [&](const auto* values, unsigned long count) {
    if (!values || count < n * file.frames)
      throw IoError(file.path, "holds " + std::to_string(count) + " voxels, expected " + std::to_string(n * file.frames) + "; the file is truncated");
    for (size_t i = 0; i < n; ++i) out[i] = value_of(values[n * frame + i]);
  };
  unsigned long count = 0;
  if (file.bits_allocated == 8) {
    const Uint8* values = nullptr;
    if (d.findAndGetUint8Array(DCM_PixelData, values, &count).bad()) values = nullptr;
    take(values, count);
  } else {
    const Uint16* values = nullptr;
    if (d.findAndGetUint16Array(DCM_PixelData, values, &count).bad()) values = nullptr;
    take(values, count);
  }
  return out;
}

std::vector<std::byte> DicomSeries::plane(int64_t z) {
  const DicomPlane& p = planes_[size_t(z)];
  const auto values = stored_values(p.file, p.frame);
  if (files_[p.file].frames == 1 && z > 0) files_[p.file].format.reset();  // read once; file 0 stays for what asks its header
  return visit_dtype(dtype_, [&](auto zero) {
    using T = decltype(zero);
    std::vector<std::byte> out(values.size() * sizeof(T));
    T* to = reinterpret_cast<T*>(out.data());
    for (size_t i = 0; i < values.size(); ++i) to[i] = T(factor_ * (p.slope * values[i] + p.intercept));
    return out;
  });
}

}  // namespace fovea::reader
