// What the Python tests ask of fovea/io:
//   fovea_io_probe info IMAGE                        header facts, as JSON
//   fovea_io_probe read IMAGE [suv] [SERIES]         the same and the SHA-256 of the voxels [channels, z, y, x]
//   fovea_io_probe copy IMAGE OUT [LABEL=NAME ...]   read and write; OUT with ":made" in front forgets the source
//   header fovea_io_probe tensors WEIGHTS                   name -> dtype, shape, SHA-256, of .safetensors or .pt
//   fovea_io_probe convert WEIGHTS OUT.safetensors
//   fovea_io_probe slide SLIDE                       every pixel of every level: their number, as JSON
//   fovea_io_probe pieces VOCABULARY TEXTS.json      numbers of each text's pieces, marks included
// Errors are one line on stderr and Fovea's exit code.
#include <cstdio>
#include <iostream>
#include <string>

#include "fovea/core/error.h"
#include "fovea/io/image.h"
#include "fovea/io/json_file.h"
#include "fovea/io/safetensors.h"
#include "fovea/io/sha256.h"
#include "fovea/io/slide.h"
#include "fovea/io/torch_pickle.h"
#include "fovea/io/word_pieces.h"

namespace {

using namespace fovea;
using io::Json;

Json facts(const io::ImageInfo& info) {
  Json json;
  json["format"] = info.format;
  json["shape"] = info.geometry.shape;
  json["channels"] = info.channels;
  json["stored"] = name_of(info.stored);
  json["dtype"] = name_of(info.dtype);
  json["slope"] = info.slope, json["inter"] = info.inter;
  json["big_endian"] = info.big_endian, json["compressed"] = info.compressed;
  json["affine_source"] = info.affine_source;
  json["affine"] = info.geometry.affine;
  json["axes"] = info.geometry.axis_codes();
  for (const auto& [label, name] : info.label_names) json["labels"][std::to_string(label)] = name;
  for (const auto& [code, bytes] : info.extensions) json["extensions"][std::to_string(code)] = bytes;
  if (info.format == "dicom") json["modality"] = info.modality, json["units"] = info.units;
  if (info.suv_per_unit) json["suv_per_unit"] = *info.suv_per_unit;
  json["notes"] = info.notes;
  return json;
}

io::TensorMap read_weights(const std::string& path) {
  return path.ends_with(".safetensors") ? io::read_safetensors(path) : io::read_torch_state_dict(path);
}

int run(const std::vector<std::string>& words) {
  const std::string verb = words.size() > 1 ? words[0] : "";
  if (verb == "info") {
    std::cout << facts(io::inspect(words[1])).dump() << "\n";
  } else if (verb == "read") {
    io::ReadOptions options;
    for (size_t i = 2; i < words.size(); ++i)
      if (words[i] == "suv")
        options.suv = true;
      else
        options.dicom_series = std::stoll(words[i]);
    Json json = facts(io::inspect(words[1], options));
    const Volume v = io::read_image(words[1], options);
    json["dtype"] = name_of(v.dtype);
    json["sha256"] = io::sha256_hex(v.data);
    std::cout << json.dump() << "\n";
  } else if (verb == "copy" && words.size() > 2) {
    Volume v = io::read_image(words[1]);
    std::string out = words[2];
    if (out.starts_with(":made")) out = out.substr(5), v.header = nullptr;
    io::WriteOptions options;
    for (size_t i = 3; i < words.size(); ++i)
      options.label_names[std::stoi(words[i])] = words[i].substr(words[i].find('=') + 1);
    io::write_image(out, v, options);
  } else if (verb == "tensors") {
    Json json = Json::object();
    for (const auto& [name, t] : read_weights(words[1]))
      json[name] = {{"dtype", name_of(t.dtype)}, {"shape", t.shape}, {"sha256", io::sha256_hex(t.data)}};
    std::cout << json.dump() << "\n";
  } else if (verb == "convert" && words.size() > 2) {
    io::write_safetensors(words[2], read_weights(words[1]));
  } else if (verb == "slide") {
    io::Slide slide(words[1]);
    size_t pixels = 0;
    for (size_t n = 0; n < slide.info().levels.size(); ++n)
      pixels += slide.read(n, 0, 0, slide.info().levels[n].height, slide.info().levels[n].width).rgb.size() / 3;
    std::cout << Json{{"levels", slide.info().levels.size()}, {"pixels", pixels}}.dump() << "\n";
  } else if (verb == "pieces" && words.size() > 2) {
    const auto vocabulary = io::WordPieces::read(words[1]);
    Json json = Json::array();
    for (const auto& text : io::read_json(words[2])) json.push_back(vocabulary.encode(text.get<std::string>()));
    std::cout << json.dump() << "\n";
  } else {
    throw ArgumentError("usage: fovea_io_probe info|read|copy|tensors|convert|slide|pieces FILE [OUT]");
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run({arguments + 1, arguments + count});
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return int(e.code());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory\n");
    return int(ExitCode::kOutOfResource);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bug: %s\n", e.what());
    return int(ExitCode::kBug);
  }
}
