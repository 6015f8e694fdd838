#pragma once
#include <torch/torch.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "fovea/core/geometry.h"

// Made-up cases of row A7: scans with nodules planted in six regions, and sentences about them in English and Chinese.
namespace fovea::recipes {

constexpr int64_t kRegions = 6, kKinds = 2, kPlanted = 4;

/// Six regions of a body and two kinds of nodule, in words of both languages.
struct Anatomy {
  struct Name {
    std::string en, zh;
  };
  std::array<Name, kRegions> regions;
  std::array<int64_t, kRegions> mirrored;  // where a region's place lies after left and right are swapped
  std::array<Name, kKinds> kinds;
  std::array<double, kKinds> kind_hu;
};
/// Right upper, middle, lower lobe, left upper lobe, lingula, left lower lobe; ground-glass and solid nodules.
const Anatomy& chest_anatomy();
/// Liver, right kidney, right lower lobe, spleen, left kidney, left lower lobe; fatty and calcified nodules.
const Anatomy& abdomen_anatomy();

/// A scan without nodules and where its regions lie.
struct Body {
  const Anatomy* anatomy = nullptr;
  torch::Tensor hu;      // [Z,Y,X] f32
  torch::Tensor region;  // [Z,Y,X] int64: 0 none, else number of the region + 1
  Geometry geometry;     // RAS
};

/// A made-up chest, small as a child's, of 16x12x18 voxels of 12 mm: body wall, lungs with oblique and horizontal
/// fissures, heart; sizes and places vary. The lungs are mirror images and the heart lies on either side as often, so
/// that nothing but the geometry tells left from right.
Body draw_chest(at::Generator generator);

/// A real CT with organ labels (numbers of TotalSegmentator's 117 classes) as the abdomen, on voxels of 12 mm: the box
/// of the six regions and two voxels around it. Errors   IoError: unreadable, grids that differ, a region that is not
/// there
Body read_abdomen(const std::filesystem::path& ct, const std::filesystem::path& labels);

/// What a draw is made of.
struct CaseOptions {
  double reliable = 0.75;  // share of reports whose kind of nodule is the true one
  double noise = -1;       // share of the scan that is noise of its mean and spread; negative: as the next line says
  double clean = 0.55, lost = 0.3;  // shares of the cases that are clean and that are noise alone; the rest is any share
};

/// Nodules of 27 to 35 mm in four of six regions, two of each kind, so that counting tells nothing. About each region
/// there is a question ("左肺舌叶有结节吗？") and an earlier report that says of which kind its nodule is, not always
/// rightly; also where there is none.
struct ReportCases {
  const Anatomy* anatomy = nullptr;
  torch::Tensor voxels;               // [B,1,Z,Y,X] f32, (HU + 500) / 500
  torch::Tensor region;               // [B,Z,Y,X] int64, as in Body
  std::vector<Geometry> geometry;     // half of the scans are stored from right to left, half from left to right
  torch::Tensor kind;                 // [B,6] int64: of the region's nodule, -1 none
  torch::Tensor centre_mm;            // [B,6,3] f64, RAS, NaN where there is none
  torch::Tensor radius_mm;            // [B,6] f64, 0 where there is none
  torch::Tensor noise;                // [B] f32, share
  std::vector<std::string> question;  // [B*6], case by case
  std::vector<std::string> report;    // [B*6]
  std::vector<std::string> finding;   // [B]: about one of the nodules, certain and true: "Lingula: solid nodule."
  torch::Tensor finding_region, finding_kind;  // [B] int64: what it says
};
/// Scans of `bodies`, drawn anew with every call. Same generator, same cases.
ReportCases draw_cases(int64_t count, const std::vector<Body>& bodies, const CaseOptions& options,
                       at::Generator generator);

/// Every sentence that can be drawn: what a vocabulary is built from.
std::vector<std::string> all_sentences(const Anatomy& anatomy);
/// A certain sentence about a region and kind, in the first English (0) or Chinese (1) wording.
std::string finding_sentence(const Anatomy& anatomy, int64_t region, int64_t kind, int language);

/// True of the Chinese among these sentences, false of the English.
bool is_chinese(const std::string& sentence);

/// The geometry of a scanner that takes left for right: x mirrored about the middle of the grid.
Geometry left_right_swapped(const Geometry& geometry);

}  // namespace fovea::recipes
