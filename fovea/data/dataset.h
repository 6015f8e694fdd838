#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fovea::data {

/// What a class is called and which voxel values in label files mean it. Class k of a network is Dataset::labels[k].
struct LabelClass {
  std::string name;
  std::vector<int> values;  // several: they are merged into this class; the first is what predictions are written with

  template <class V>
  void visit(V& v) {
    v("name", name, "what the class is called");
    v("values", values, "voxel values in label files; predictions are written with the first");
  }
  bool operator==(const LabelClass&) const = default;
};

/// One subject: image files (one a channel, or one file holding all channels) and the label file.
struct Case {
  std::string id;
  std::vector<std::filesystem::path> images;
  std::filesystem::path label;  // empty: none
};

/// Identifiers of the cases to train on and to validate on.
struct Split {
  std::vector<std::string> train, val;
};

struct Dataset {
  std::string name;
  std::filesystem::path root;          // every file of the dataset lies inside
  std::filesystem::path description;   // dataset.json or the datalist; empty for a bare folder
  std::vector<std::string> channels;   // names, "CT" selects CT normalisation
  std::vector<LabelClass> labels;      // by ascending value, background first; empty when nothing is labelled
  std::optional<int> ignore_label;     // nnU-Net's "ignore"
  std::vector<Case> training;          // sorted by id
  std::vector<Case> test;              // sorted by id
  std::vector<Split> declared_splits;  // MONAI's "fold" or "validation"; empty when the file says nothing
  std::optional<int64_t> declared_training_cases;  // nnU-Net's numTraining, compared by verify()
  std::string note;                                // how labels were found when no file declared them

  bool is_labelled() const { return !labels.empty(); }
  /// True if two classes share a voxel value: nnU-Net's region-based training, which make_plan() refuses.
  bool has_regions() const;
};

struct OpenOptions {
  /// Folder that a datalist's paths are relative to. Empty: the folder of the datalist.
  std::filesystem::path data_root;
  /// Accept files that are symbolic links out of the dataset folder.
  bool follow_links = false;
};

/// Opens a dataset and lists its cases; voxels are not read (see verify()), except in the last layout.
///   Dataset017_NAME/{dataset.json,imagesTr/CASE_0000.nii.gz,labelsTr/CASE.nii.gz,imagesTs}: nnU-Net 2
///   folder with dataset.json that has "training": [{"image","label"}]: Decathlon
///   datalist.json {"training": [{"image","label","fold"}], "validation": [], "test": []}: MONAI
///   folder with imagesTr and labelsTr only: names pair images and labels, one channel or _0000 suffixes; the label
///   values are found by reading every label file, and Dataset::note says so.
/// nnU-Net's "dataset" object (explicit paths) and lists of label values are understood: values of one class are merged.
/// A case whose image, channel or label file is missing is listed with the path where it should be: verify() names it.
/// Errors  IoError: neither layout, wrong types, a path that is absolute or leaves the dataset folder (symbolic links
///         included unless follow_links), no background label.
Dataset open_dataset(const std::filesystem::path& where, const OpenOptions& options = {});

/// The cross-validation folds: ROOT/splits_final.json if there is one, else what the datalist declares, else `folds`
/// deterministic folds: the labelled ids in ascending order, shuffled (Fisher-Yates, Rng(seed, 0, 0, stream kSplits)),
/// and the i-th of them validates fold i % folds. Fewer cases than folds: one fold a case.
/// Errors  IoError: splits_final.json names an unknown case, or one in both lists. ArgumentError: fewer than two cases,
///         fold count below 2, or a duplicate id.
std::vector<Split> splits(const Dataset& dataset, int folds = 5, uint64_t seed = 12345);

/// The training cases with these ids, in the order of the ids. Errors: ArgumentError for an unknown id.
std::vector<Case> select_cases(const Dataset& dataset, const std::vector<std::string>& ids);

}  // namespace fovea::data
