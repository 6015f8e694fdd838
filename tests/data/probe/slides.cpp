// What the Python tests ask of slides and feature files:
//   fovea_slides_probe features FILE            features, coords, edge_level0 and encoder, as JSON
//   fovea_slides_probe rewrite FILE OUT.h5      read and write
//   fovea_slides_probe phantom OUT.tif SEED TUMOURS UM|none [glass]     a simulated slide and where its tumours lie, as JSON
//   fovea_slides_probe study FOLDER COUNT       so many of them in FOLDER/slides, with FOLDER/slides.csv and slides.json
// Errors are one line on stderr and Fovea's exit code.
#include <cstdio>
#include <iostream>
#include <string>

#include <torch/torch.h>

#include "fovea/core/error.h"
#include "fovea/data/slide_features.h"
#include "fovea/data/slide_phantom.h"
#include "fovea/data/torch_tensor.h"
#include "fovea/io/atomic_file.h"
#include "fovea/io/feature_file.h"
#include "fovea/io/json_file.h"
#include "fovea/io/pyramid_tiff.h"

namespace {
using namespace fovea;
using io::Json;

Json rows_of(const torch::Tensor& t) {
  Json all = Json::array();
  for (int64_t i = 0; t.defined() && i < t.size(0); ++i) all.push_back(data::to_doubles(t[i]));
  return t.defined() ? all : Json();
}

// Returns where its tumours lie.
Json write_phantom(const std::filesystem::path& path, uint32_t index, int64_t tumours, std::optional<double> um_per_pixel, bool tissue) {
  data::SlidePhantomConfig config;
  config.height = 1280, config.width = 1408, config.tumour_radius_um = 170, config.tumours = tumours, config.tissue = tissue;
  const auto phantom = data::make_slide_phantom(config, index);
  io::write_pyramid_tiff(path, phantom.levels, um_per_pixel);
  Json places = Json::array();
  for (const auto& t : phantom.tumours) places.push_back({{"y", t.y}, {"x", t.x}, {"radius", t.radius}});
  return {{"tumours", places}};
}

int run(const std::vector<std::string>& words) {
  if (words.size() == 2 && words[0] == "features") {
    const auto slide = data::read_slide_features(words[1]);
    std::cout << Json{{"features", rows_of(slide.features)}, {"coords", rows_of(slide.coords)}, {"edge_level0", slide.edge_level0 ? Json(*slide.edge_level0) : Json()}, {"encoder", slide.encoder}}.dump() << "\n";
  } else if (words.size() == 3 && words[0] == "rewrite") {
    io::write_feature_file(words[2], io::read_feature_file(words[1]));
    std::cout << "{}\n";
  } else if (words.size() >= 5 && words[0] == "phantom") {
    const auto um = words[4] == "none" ? std::optional<double>() : std::stod(words[4]);
    std::cout << write_phantom(words[1], uint32_t(std::stoul(words[2])), std::stoll(words[3]), um, /*tissue=*/words.size() < 6).dump() << "\n";
  } else if (words.size() == 3 && words[0] == "study") {
    const std::filesystem::path folder = words[1];
    std::filesystem::create_directories(folder / "slides");
    std::string table = "case_id,slide_id,label\n";
    for (uint32_t i = 0; i < std::stoul(words[2]); ++i) {
      const std::string id = "s" + std::to_string(i);
      write_phantom(folder / "slides" / (id + ".tif"), i, i % 2, 1.0, /*tissue=*/true);
      table += "c" + std::to_string(i) + "," + id + "," + (i % 2 ? "tumour" : "normal") + "\n";
    }
    io::write_file(folder / "slides.csv", table);
    io::write_json(folder / "slides.json", {{"name", "simulated slides"}, {"simulated", true}});
    std::cout << "data slides: wrote " << words[2] << " simulated slides to " << folder.string() << "\n";
  } else {
    throw ArgumentError("fovea_slides_probe: features FILE | rewrite FILE OUT.h5 | phantom OUT.tif SEED TUMOURS UM [glass] | study FOLDER COUNT");
  }
  return 0;
}
}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const fovea::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return int(error.code());
  }
}
