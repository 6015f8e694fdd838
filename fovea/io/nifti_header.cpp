#include "fovea/io/nifti_header.h"

#include <nifti2_io.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "fovea/core/error.h"

namespace fovea::io {

namespace {

constexpr char kMagic1[] = "n+1", kPairMagic1[] = "ni1";
constexpr char kMagic2[] = "n+2\0\r\n\032\n", kPairMagic2[] = "ni2\0\r\n\032\n";

template <class T>
T swapped(T value) {
  auto bytes = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
  std::reverse(bytes.begin(), bytes.end());
  return std::bit_cast<T>(bytes);
}

struct Decoder {
  std::span<const std::byte> bytes;
  bool swap;
  template <class Stored, class Member>
  void field(size_t offset, Member& member) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + offset, sizeof stored);
    member = static_cast<Member>(swap ? swapped(stored) : stored);
  }
};

struct Encoder {
  std::vector<std::byte>& bytes;
  template <class Stored, class Member>
  void field(size_t offset, Member& member) {
    const Stored stored = static_cast<Stored>(member);
    std::memcpy(bytes.data() + offset, &stored, sizeof stored);
  }
};

// One list of fields serves reading and writing. I: small integers, D: dimensions, F: real numbers.
template <class Header, class Codec>
void nifti1_fields(Header& h, Codec& codec) {
  codec.template field<int32_t>(0, h.header_size);
  codec.template field<uint8_t>(39, h.dim_info);
  for (size_t i = 0; i < 8; ++i) codec.template field<int16_t>(40 + 2 * i, h.dim[i]);
  codec.template field<int16_t>(68, h.intent_code);
  codec.template field<int16_t>(70, h.datatype);
  codec.template field<int16_t>(72, h.bitpix);
  for (size_t i = 0; i < 8; ++i) codec.template field<float>(76 + 4 * i, h.pixdim[i]);
  codec.template field<float>(108, h.vox_offset);
  codec.template field<float>(112, h.slope);
  codec.template field<float>(116, h.inter);
  codec.template field<uint8_t>(123, h.xyzt_units);
  codec.template field<int16_t>(252, h.qform_code);
  codec.template field<int16_t>(254, h.sform_code);
  for (size_t i = 0; i < 3; ++i) codec.template field<float>(256 + 4 * i, h.quatern[i]);
  for (size_t i = 0; i < 3; ++i) codec.template field<float>(268 + 4 * i, h.qoffset[i]);
  for (size_t i = 0; i < 12; ++i) codec.template field<float>(280 + 4 * i, h.srow[i / 4][i % 4]);
  for (size_t i = 0; i < 4; ++i) codec.template field<char>(344 + i, h.magic[i]);
}

template <class Header, class Codec>
void nifti2_fields(Header& h, Codec& codec) {
  codec.template field<int32_t>(0, h.header_size);
  for (size_t i = 0; i < 8; ++i) codec.template field<char>(4 + i, h.magic[i]);
  codec.template field<int16_t>(12, h.datatype);
  codec.template field<int16_t>(14, h.bitpix);
  for (size_t i = 0; i < 8; ++i) codec.template field<int64_t>(16 + 8 * i, h.dim[i]);
  for (size_t i = 0; i < 8; ++i) codec.template field<double>(104 + 8 * i, h.pixdim[i]);
  codec.template field<int64_t>(168, h.vox_offset);
  codec.template field<double>(176, h.slope);
  codec.template field<double>(184, h.inter);
  codec.template field<int32_t>(344, h.qform_code);
  codec.template field<int32_t>(348, h.sform_code);
  for (size_t i = 0; i < 3; ++i) codec.template field<double>(352 + 8 * i, h.quatern[i]);
  for (size_t i = 0; i < 3; ++i) codec.template field<double>(376 + 8 * i, h.qoffset[i]);
  for (size_t i = 0; i < 12; ++i) codec.template field<double>(400 + 8 * i, h.srow[i / 4][i % 4]);
  codec.template field<int32_t>(500, h.xyzt_units);
  codec.template field<int32_t>(504, h.intent_code);
  codec.template field<uint8_t>(524, h.dim_info);
}

struct TypeRow {
  int64_t code, bits;
  const char* name;
  std::optional<DType> dtype;
};
const std::array<TypeRow, 18> kTypes{{
    {1, 1, "binary (1 bit)", {}},
    {2, 8, "u8", DType::kU8},
    {4, 16, "i16", DType::kI16},
    {8, 32, "i32", DType::kI32},
    {16, 32, "f32", DType::kF32},
    {32, 64, "complex64", {}},
    {64, 64, "f64", DType::kF64},
    {128, 24, "RGB", {}},
    {256, 8, "i8", DType::kI8},
    {512, 16, "u16", DType::kU16},
    {768, 32, "u32", DType::kU32},
    {1024, 64, "i64", DType::kI64},
    {1280, 64, "u64", DType::kU64},
    {1536, 128, "128-bit float", {}},
    {1792, 128, "complex128", {}},
    {2048, 256, "complex256", {}},
    {2304, 32, "RGBA", {}},
    {16384, 16, "f16", {}},  // f16 is in no standard, but some writers use this code
}};

const TypeRow* find_type(int64_t code) {
  const auto row = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeRow& r) { return r.code == code; });
  return row == kTypes.end() ? nullptr : &*row;
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

bool finite(double value) { return std::isfinite(value); }

}  // namespace

std::optional<NiftiKind> nifti_kind(std::span<const std::byte> start) {
  if (start.size() < 4) return std::nullopt;
  int32_t size = 0;
  std::memcpy(&size, start.data(), sizeof size);
  for (const bool swap : {false, true}) {
    const int32_t value = swap ? swapped(size) : size;
    if (value == 348 || value == 540) return NiftiKind{value == 348 ? 1 : 2, swap};
  }
  return std::nullopt;
}

NiftiHeader decode_nifti(std::span<const std::byte> bytes, NiftiKind kind) {
  NiftiHeader h;
  h.version = kind.version;
  FOVEA_CHECK(int64_t(bytes.size()) >= h.size_in_file(), "short NIfTI header");
  Decoder decoder{bytes, kind.swapped};
  if (kind.version == 1)
    nifti1_fields(h, decoder);
  else
    nifti2_fields(h, decoder);
  return h;
}

std::vector<std::byte> encode_nifti(const NiftiHeader& header) {
  NiftiHeader h = header;
  h.header_size = h.size_in_file();
  h.magic = {};
  std::copy_n(h.version == 1 ? kMagic1 : kMagic2, h.version == 1 ? 4 : 8, h.magic.begin());
  std::vector<std::byte> bytes(size_t(h.size_in_file()));
  Encoder encoder{bytes};
  if (h.version == 1)
    nifti1_fields(h, encoder);
  else
    nifti2_fields(h, encoder);
  return bytes;
}

void check_nifti(const std::filesystem::path& path, const NiftiHeader& h) {
  const size_t magic_bytes = h.version == 1 ? 4 : 8;
  const auto magic_is = [&](const char* magic) { return std::memcmp(h.magic.data(), magic, magic_bytes) == 0; };
  if (magic_is(h.version == 1 ? kPairMagic1 : kPairMagic2))
    throw IoError(path,
                  "is the header of a .hdr/.img pair, expected one .nii or .nii.gz file; convert the pair to a single "
                  "file first");
  if (!magic_is(h.version == 1 ? kMagic1 : kMagic2))
    throw IoError(path, "has the size field of NIfTI-" + std::to_string(h.version) +
                            " but not its magic (an Analyze 7.5 header?), expected \"n+" + std::to_string(h.version) +
                            "\"");

  if (h.dim[0] < 1 || h.dim[0] > 7)
    throw IoError(path, "dim[0] is " + std::to_string(h.dim[0]) + ", expected 1 to 7 axes");
  const int64_t largest = h.version == 1 ? 32767 : int64_t{1} << 31;
  for (int64_t i = 1; i <= h.dim[0]; ++i)
    if (h.dim[size_t(i)] < 1 || h.dim[size_t(i)] > largest)
      throw IoError(path, "dim[" + std::to_string(i) + "] is " + std::to_string(h.dim[size_t(i)]) + ", expected 1 to " +
                              std::to_string(largest));
  const auto extent = [&](size_t i) { return int64_t(i) <= h.dim[0] ? h.dim[i] : 1; };
  if (extent(6) != 1 || extent(7) != 1 || (extent(4) != 1 && extent(5) != 1))
    throw IoError(path, "has more than four axes longer than 1 (" + std::to_string(extent(4)) + "x" +
                            std::to_string(extent(5)) + "x" + std::to_string(extent(6)) + "x" +
                            std::to_string(extent(7)) + " after x, y, z), expected a volume with one channel axis");

  const TypeRow* type = find_type(h.datatype);
  if (!type) throw IoError(path, "datatype " + std::to_string(h.datatype) + " is no NIfTI type");
  if (!type->dtype)
    throw IoError(path, std::string("voxel type ") + type->name +
                            " is not supported, expected an integer type, f32 or f64; convert it first");
  if (type->bits != h.bitpix)
    throw IoError(path, "bitpix is " + std::to_string(h.bitpix) + ", expected " + std::to_string(type->bits) +
                            " for datatype " + std::to_string(h.datatype));

  if (!finite(h.vox_offset) || h.vox_offset != std::floor(h.vox_offset) || h.vox_offset < double(h.size_in_file()) ||
      h.vox_offset > 0x1p52)
    throw IoError(path, "vox_offset is " + number(h.vox_offset) + ", expected a whole number of at least " +
                            std::to_string(h.size_in_file()));
  if (!finite(h.slope) || !finite(h.inter))
    throw IoError(
        path, "scl_slope is " + number(h.slope) + " and scl_inter " + number(h.inter) + ", expected finite numbers");
}

Geometry nifti_geometry(const std::filesystem::path& path, const NiftiHeader& h, std::string& source,
                        std::string& note) {
  Geometry g;
  const auto extent = [&](size_t i) { return int64_t(i) <= h.dim[0] ? h.dim[i] : 1; };
  g.shape = {extent(3), extent(2), extent(1)};
  const auto join = [&](const std::string& remark) { note += (note.empty() ? "" : "; ") + remark; };

  // pixdim of an axis of length 1 is often left at 0; any positive step then describes the same voxels.
  std::array<double, 3> step{h.pixdim[1], h.pixdim[2], h.pixdim[3]};
  const auto settle_steps = [&] {
    for (size_t i = 0; i < 3; ++i) {
      const std::string name = "pixdim[" + std::to_string(i + 1) + "]";
      if (!finite(step[i])) throw IoError(path, name + " is " + number(step[i]) + ", expected a finite number");
      if (step[i] < 0) join(name + " is negative; its absolute value is used"), step[i] = -step[i];
      if (step[i] == 0 && extent(i + 1) == 1) join(name + " is 0 on an axis of one voxel; 1 mm is used"), step[i] = 1;
    }
  };

  if (h.sform_code > 0) {
    source = "sform";
    g.affine = h.srow;
  } else if (h.qform_code > 0) {
    source = "qform";
    settle_steps();
    const double squares = h.quatern[0] * h.quatern[0] + h.quatern[1] * h.quatern[1] + h.quatern[2] * h.quatern[2];
    if (!finite(h.pixdim[0]))
      throw IoError(path, "pixdim[0], the handedness of the qform, is " + number(h.pixdim[0]) + ", expected 1 or -1");
    if (!finite(squares) || squares > 1.001)
      throw IoError(path, "the qform's quaternion (" + number(h.quatern[0]) + ", " + number(h.quatern[1]) + ", " +
                              number(h.quatern[2]) + ") is no rotation");
    if (step[0] <= 0 || step[1] <= 0 || step[2] <= 0)
      throw IoError(path, "pixdim has a spacing of 0, so the affine is singular");
    const nifti_dmat44 m =
        nifti_quatern_to_dmat44(h.quatern[0], h.quatern[1], h.quatern[2], h.qoffset[0], h.qoffset[1], h.qoffset[2],
                                step[0], step[1], step[2], h.pixdim[0] < 0 ? -1.0 : 1.0);
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 4; ++c) g.affine[r][c] = m.m[r][c];
  } else {
    source = "pixdim";
    settle_steps();
    join("neither sform nor qform: the orientation is unknown and taken as RAS from voxel spacing alone");
    for (size_t i = 0; i < 3; ++i) g.affine[i][i] = step[i];
  }

  const int64_t unit = h.xyzt_units & 7;
  const double to_mm = unit == 1 ? 1000.0 : unit == 3 ? 0.001 : 1.0;
  if (to_mm != 1)
    join(std::string("positions are in ") + (unit == 1 ? "metres" : "micrometres") + " and were turned to millimetres");
  for (auto& row : g.affine)
    for (double& value : row) {
      value *= to_mm;
      if (!finite(value))
        throw IoError(path, "the affine (" + source + ") holds " + number(value) + ", expected finite numbers");
    }
  if (g.is_singular()) {
    std::string rows;
    for (const auto& row : g.affine)
      rows += (rows.empty() ? "" : "; ") + number(row[0]) + " " + number(row[1]) + " " + number(row[2]);
    throw IoError(path, "the affine (" + source + ") is singular: [" + rows + "]; voxels have no volume");
  }
  return g;
}

void set_nifti_geometry(NiftiHeader& h, const Geometry& g) {
  const auto spacing = g.spacing_mm();
  h.srow = g.affine;
  h.sform_code = 1;
  h.xyzt_units = 2;
  h.qform_code = 0;
  h.quatern = h.qoffset = {0, 0, 0};
  h.pixdim = {1, spacing[2], spacing[1], spacing[0], 1, 1, 1, 1};
  // A quaternion can only say rotation: with shear it would contradict the sform.
  for (int a = 0; a < 3; ++a)
    for (int b = a + 1; b < 3; ++b) {
      double cosine = 0;
      for (int r = 0; r < 3; ++r) cosine += g.affine[r][a] / spacing[2 - a] * g.affine[r][b] / spacing[2 - b];
      if (std::abs(cosine) > 1e-5) return;
    }
  nifti_dmat44 m{};
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 4; ++c) m.m[r][c] = g.affine[r][c];
  m.m[3][3] = 1;
  double dx, dy, dz;
  nifti_dmat44_to_quatern(m, &h.quatern[0], &h.quatern[1], &h.quatern[2], &h.qoffset[0], &h.qoffset[1], &h.qoffset[2],
                          &dx, &dy, &dz, &h.pixdim[0]);
  h.qform_code = 1;
}

int64_t nifti_channels(const NiftiHeader& h) {
  const int64_t fourth = h.dim[0] >= 4 ? h.dim[4] : 1, fifth = h.dim[0] >= 5 ? h.dim[5] : 1;
  return fourth * fifth;  // check_nifti: one of them is 1
}

std::optional<int64_t> nifti_code(DType dtype) {
  if (dtype == DType::kBool) dtype = DType::kU8;
  for (const TypeRow& row : kTypes)
    if (row.dtype == dtype) return row.code;
  return std::nullopt;
}

std::optional<DType> nifti_dtype(int64_t code) {
  const TypeRow* row = find_type(code);
  return row ? row->dtype : std::nullopt;
}

}  // namespace fovea::io
