#include "fovea/reader/feature_hdf5.h"

#include <hdf5.h>

#include <cstdlib>
#include <cstring>

#include "fovea/core/error.h"

namespace fovea::reader {

namespace {
// A handle of the library with the function that gives it back.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }
  bool good() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

void keep_quiet() {
  setenv("HDF5_PLUGIN_PRELOAD", "::", 1);  // no filter is loaded from a folder
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

class Dataset {
 public:
  Dataset(const std::filesystem::path& path, hid_t file, const char* name) : path_(path), name_(name), set_(open(file), H5Dclose) {
    if (!set_.good()) throw IoError(path, std::string("its dataset '") + name + "' cannot be opened; the file is damaged");
    const Handle creation(H5Dget_create_plist(set_), H5Pclose);
    if (H5Pget_layout(creation) == H5D_VIRTUAL || H5Pget_external_count(creation) > 0)
      throw IoError(path, std::string("its dataset '") + name + "' lies in other files, which this reader refuses");
    const Handle space(H5Dget_space(set_), H5Sclose);
    const int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 1 || rank > 3) throw IoError(path, std::string("its dataset '") + name + "' has " + std::to_string(rank) + " axes, expected rows and columns");
    shape_.resize(size_t(rank));
    H5Sget_simple_extent_dims(space, shape_.data(), nullptr);
    if (rank == 3 && shape_[0] == 1) shape_.erase(shape_.begin());
    if (shape_.size() != 2) throw IoError(path, std::string("its dataset '") + name + "' has " + std::to_string(rank) + " axes, expected rows and columns");
  }

  hsize_t rows() const { return shape_[0]; }
  hsize_t columns() const { return shape_[1]; }
  hid_t id() const { return set_; }

  template <class T>
  std::vector<T> read(hid_t memory_type, H5T_class_t kind, const char* expected, uint64_t max_bytes) const {
    const Handle type(H5Dget_type(set_), H5Tclose);
    if (H5Tget_class(type) != kind) throw IoError(path_, "its dataset '" + name_ + "' does not hold " + expected);
    if (columns() > 0 && rows() > max_bytes / sizeof(T) / columns())
      throw IoError(path_, "its dataset '" + name_ + "' is " + std::to_string(rows()) + " x " + std::to_string(columns()) + ", more than the limit of " + std::to_string(max_bytes) + " bytes");
    std::vector<T> values(size_t(rows() * columns()));
    if (!values.empty() && H5Dread(set_, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
      throw IoError(path_, "its dataset '" + name_ + "' cannot be read; the file is truncated or damaged");
    return values;
  }

 private:
  static hid_t open_hard(hid_t file, const char* name) {
    H5L_info_t link;
    if (H5Lget_info(file, name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD) return -1;
    return H5Dopen2(file, name, H5P_DEFAULT);
  }
  hid_t open(hid_t file) const { return open_hard(file, name_.c_str()); }

  const std::filesystem::path& path_;
  std::string name_;
  Handle set_;
  std::vector<hsize_t> shape_;
};

herr_t take_attribute(hid_t object, const char* name, const H5A_info_t*, void* user) {
  auto& table = *static_cast<FeatureTable*>(user);
  const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  const Handle type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
  const auto kind = H5Tget_class(type);
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  if ((kind == H5T_INTEGER || kind == H5T_FLOAT) && count >= 1 && count <= 2) {
    double values[2] = {};
    if (H5Aread(attribute, H5T_NATIVE_DOUBLE, values) >= 0) table.numbers[std::string(name).substr(0, 64)] = values[0];
  } else if (kind == H5T_STRING && std::strcmp(name, "encoder") == 0 && count == 1) {
    if (H5Tis_variable_str(type) > 0) {
      char* text = nullptr;
      const Handle as(H5Tcopy(type), H5Tclose);
      if (H5Aread(attribute, as, &text) >= 0 && text) table.encoder = std::string(text).substr(0, 64), H5free_memory(text);
    } else if (const size_t size = H5Tget_size(type); size < 4096) {
      std::string text(size, '\0');
      if (H5Aread(attribute, type, text.data()) >= 0) table.encoder = std::string(text.c_str()).substr(0, 64);
    }
  }
  return 0;
}

// A dataset of `type` with the values; attributes are the caller's.
hid_t write_dataset(hid_t file, const char* name, hid_t type, hsize_t rows, hsize_t columns, const void* values) {
  const hsize_t shape[2] = {rows, columns};
  const Handle space(H5Screate_simple(2, shape, nullptr), H5Sclose);
  const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  FOVEA_CHECK(set >= 0 && (rows == 0 || H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0), "HDF5 in memory");
  return set;
}
}  // namespace

FeatureTable read_feature_hdf5(const std::filesystem::path& path, uint64_t max_bytes) {
  keep_quiet();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) throw IoError(path, "no such file");
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.good()) throw IoError(path, "is no HDF5 file, or truncated");
  const auto has = [&](const char* name) { return H5Lexists(file, name, H5P_DEFAULT) > 0; };
  if (!has("features") && !has("coords")) throw IoError(path, "has neither dataset 'features' nor 'coords', expected those of CLAM or TRIDENT");
  FeatureTable table;
  if (has("features")) {
    const Dataset set(path, file, "features");
    table.rows = int64_t(set.rows()), table.columns = int64_t(set.columns());
    table.features = set.read<float>(H5T_NATIVE_FLOAT, H5T_FLOAT, "floating-point numbers", max_bytes);
    H5Aiterate2(set.id(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, take_attribute, &table);
    table.numbers.clear();
  }
  if (has("coords")) {
    const Dataset set(path, file, "coords");
    if (set.columns() != 2) throw IoError(path, "its dataset 'coords' has " + std::to_string(set.columns()) + " columns, expected x and y");
    table.coord_rows = int64_t(set.rows());
    table.coords = set.read<int64_t>(H5T_NATIVE_INT64, H5T_INTEGER, "whole numbers", max_bytes);
    H5Aiterate2(set.id(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, take_attribute, &table);
  }
  return table;
}

std::vector<uint8_t> encode_feature_hdf5(const FeatureTable& table) {
  keep_quiet();
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose), creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_fapl_core(access, size_t{1} << 20, /*backing_store=*/false);
  const Handle file(H5Fcreate("features.h5", H5F_ACC_TRUNC, creation, access), H5Fclose);
  FOVEA_CHECK(file.good(), "HDF5 in memory");
  {
    const Handle features(write_dataset(file, "features", H5T_IEEE_F32LE, hsize_t(table.rows), hsize_t(table.columns), table.features.data()), H5Dclose);
    const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose);
    if (!table.encoder.empty()) {
      const Handle text(H5Tcopy(H5T_C_S1), H5Tclose);
      H5Tset_size(text, table.encoder.size());
      const Handle attribute(H5Acreate2(features, "encoder", text, scalar, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
      H5Awrite(attribute, text, table.encoder.data());
    }
    if (table.coord_rows >= 0) {
      const Handle coords(write_dataset(file, "coords", H5T_STD_I64LE, hsize_t(table.coord_rows), 2, table.coords.data()), H5Dclose);
      for (const auto& [name, value] : table.numbers) {
        const Handle attribute(H5Acreate2(coords, name.c_str(), H5T_IEEE_F64LE, scalar, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
        H5Awrite(attribute, H5T_NATIVE_DOUBLE, &value);
      }
    }
  }
  H5Fflush(file, H5F_SCOPE_GLOBAL);
  const ssize_t size = H5Fget_file_image(file, nullptr, 0);
  FOVEA_CHECK(size > 0, "HDF5 in memory");
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  H5Fget_file_image(file, bytes.data(), bytes.size());
  return bytes;
}

}  // namespace fovea::reader
