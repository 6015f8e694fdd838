#include "fovea/data/preprocess.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "fovea/core/error.h"
#include "fovea/data/label_values.h"
#include "fovea/data/resample.h"

namespace fovea::data {

namespace {

using Shape = std::array<int64_t, 3>;

void normalise(const ChannelNormalisation& how, std::vector<float>& voxels) {
  if (how.scheme == Normalisation::kNone) return;
  if (how.scheme == Normalisation::kCt) {
    const float lower = float(how.lower), upper = float(how.upper), mean = float(how.mean),
                scale = float(1 / how.deviation);
    for (float& v : voxels) v = (std::clamp(v, lower, upper) - mean) * scale;
    return;
  }
  const bool masked = how.scheme == Normalisation::kZscoreNonzero;
  double n = 0, sum = 0, squares = 0;
  for (const float v : voxels)
    if (!masked || v != 0) n += 1, sum += v;
  if (n == 0) return;
  const double mean = sum / n;
  for (const float v : voxels)
    if (!masked || v != 0) squares += (v - mean) * (v - mean);
  const float shift = float(mean), scale = float(1 / std::max(std::sqrt(squares / n), 1e-8));
  for (float& v : voxels)
    if (!masked || v != 0) v = (v - shift) * scale;
}

Antialias antialias_of(const Plan& plan) {
  return plan.image_resampling == ImageResampling::kLinearAntialias ? Antialias::kOn : Antialias::kOff;
}

template <class T>
torch::Tensor grid_label(const Volume& classes, const Preprocessed& p, const Plan& plan, const ParallelFor& parallel) {
  const auto from = crop(
      reorient(View<const T, 3>::contiguous(classes.as<T>().data(), classes.geometry.shape), p.orientation), p.box);
  const torch::Tensor label =
      torch::empty({p.grid.shape[0], p.grid.shape[1], p.grid.shape[2]}, c10::CppTypeToScalarType<T>::value);
  const auto to = View<T, 3>::contiguous(label.data_ptr<T>(), p.grid.shape);
  if (plan.label_resampling == LabelResampling::kVote)
    resample_vote<T>(from, to, parallel);
  else
    resample_nearest<T>(from, to, parallel);
  return label;
}

void require_finite(const Volume& image, const std::filesystem::path& path) {
  if (const auto bad = find_non_finite(image)) throw IoError(path, "image has " + to_string(*bad));
}

// Files (or, in memory, the case's id) stand for the images in messages.
Preprocessed run(const std::string& id, const std::vector<Volume>& images,
                 const std::vector<std::filesystem::path>& files, const Volume* label,
                 const std::filesystem::path& label_file, const Plan& plan, const ParallelFor& parallel) {
  Preprocessed p;
  p.id = id, p.source = images.front().geometry, p.header = images.front().header;
  for (const auto& one : plan.labels) p.class_values.push_back(one.values.front());
  for (size_t f = 0; f < images.size(); ++f) require_finite(images[f], files[f]);
  if (p.source.is_singular()) throw IoError(files.front(), "the affine is singular; " + to_string(p.source));
  if (label && !same_place(p.source, label->geometry))
    throw IoError(label_file, "its grid differs from the image's: " + to_string(label->geometry) + "; expected " +
                                  to_string(p.source));

  p.orientation = to_canonical(p.source);
  p.canonical = reorient(p.source, p.orientation);
  p.box = {{0, 0, 0}, p.canonical.shape};
  Volume classes;
  if (label) classes = to_classes(*label, label_file, plan.labels);
  if (plan.crop_to_nonzero) {
    Box box;
    for (const auto& image : images) box = box.united(non_zero_box(image));
    if (label) box = box.united(non_zero_box(classes));
    if (box.voxels() > 0) p.box = reorient(box, p.source.shape, p.orientation);
  }
  const Geometry kept = cropped(p.canonical, p.box);
  p.grid = resampled_geometry(kept, resampled_shape(kept, plan.spacing_mm));

  p.image = torch::empty({plan.channels(), p.grid.shape[0], p.grid.shape[1], p.grid.shape[2]}, torch::kFloat);
  int64_t channel = 0;
  for (const auto& image : images)
    for (int64_t c = 0; c < image.channels; ++c, ++channel) {
      std::vector<float> voxels = read_channel(image, c, p.orientation, p.box);
      normalise(plan.normalisation[channel], voxels);
      resample_linear(View<const float, 3>::contiguous(voxels.data(), p.box.shape),
                      View<float, 3>::contiguous(p.image.data_ptr<float>() + channel * p.grid.voxels(), p.grid.shape),
                      antialias_of(plan), parallel);
    }
  if (label)
    p.label = classes.dtype == DType::kU8 ? grid_label<uint8_t>(classes, p, plan, parallel)
                                          : grid_label<int16_t>(classes, p, plan, parallel);
  return p;
}

std::string shape_text(const torch::Tensor& t) {
  std::ostringstream text;
  text << t.scalar_type() << " " << t.sizes();
  return text.str();
}

Shape tail_shape(const torch::Tensor& t) { return {t.size(-3), t.size(-2), t.size(-1)}; }

void require_shape(const char* who, const torch::Tensor& t, const Preprocessed& p) {
  const auto text = [](const Shape& s) {
    return "[" + std::to_string(s[0]) + ", " + std::to_string(s[1]) + ", " + std::to_string(s[2]) + "]";
  };
  if (tail_shape(t) != p.grid.shape && tail_shape(t) != p.box.shape)
    throw ArgumentError(std::string(who) + ": " + p.id + ": the map is " + shape_text(t) + ", expected " +
                        text(p.grid.shape) + " (the plan's grid) or " + text(p.box.shape) +
                        " (the file's voxels, canonical and cropped)");
}

template <class T>
Volume place_labels(const std::vector<int16_t>& native, const Preprocessed& p) {
  Volume out = Volume::zeros(p.source, dtype_of<T>::value);
  out.header = p.header;
  std::fill(out.as<T>().begin(), out.as<T>().end(), static_cast<T>(p.class_values.front()));
  const auto to = crop(reorient(View<T, 3>::contiguous(out.as<T>().data(), p.source.shape), p.orientation), p.box);
  const int16_t* from = native.data();
  for (int64_t z = 0; z < p.box.shape[0]; ++z)
    for (int64_t y = 0; y < p.box.shape[1]; ++y)
      for (int64_t x = 0; x < p.box.shape[2]; ++x) to(z, y, x) = static_cast<T>(p.class_values[*from++]);
  return out;
}

}  // namespace

Preprocessed preprocess(const Case& one, const Plan& plan, const ParallelFor& parallel) {
  plan.validate();
  const auto images = read_images(one, plan.channels());
  if (one.label.empty()) return run(one.id, images, one.images, nullptr, {}, plan, parallel);
  const Volume label = read_volume(one.label, "label");
  return run(one.id, images, one.images, &label, one.label, plan, parallel);
}

Preprocessed preprocess(const std::string& id, const std::vector<Volume>& images, const Volume* label, const Plan& plan,
                        const ParallelFor& parallel) {
  plan.validate();
  int64_t channels = 0;
  for (const auto& image : images) {
    channels += image.channels;
    if (!same_place(images.front().geometry, image.geometry))
      throw ArgumentError("preprocess: " + id + ": the channels lie on different grids");
  }
  if (channels != plan.channels())
    throw ArgumentError("preprocess: " + id + " has " + std::to_string(channels) + " channels, the plan expects " +
                        std::to_string(plan.channels()));
  return run(id, images, std::vector<std::filesystem::path>(images.size(), id), label, id, plan, parallel);
}

Volume restore_labels(const torch::Tensor& labels, const Preprocessed& p, const ParallelFor& parallel) {
  if (labels.dim() != 3 || !at::isIntegralType(labels.scalar_type(), /*includeBool=*/false))
    throw ArgumentError("restore_labels: " + p.id + ": the map is " + shape_text(labels) +
                        ", expected integers [Z, Y, X]");
  require_shape("restore_labels", labels, p);
  const int64_t classes = static_cast<int64_t>(p.class_values.size());
  if (labels.numel() > 0 && (labels.min().item<int64_t>() < 0 || labels.max().item<int64_t>() >= classes))
    throw ArgumentError("restore_labels: " + p.id + ": classes " + std::to_string(labels.min().item<int64_t>()) +
                        " to " + std::to_string(labels.max().item<int64_t>()) + ", the plan has 0 to " +
                        std::to_string(classes - 1));
  const torch::Tensor given = labels.to(torch::kCPU, torch::kShort).contiguous();
  std::vector<int16_t> native(p.box.voxels());
  resample_nearest<int16_t>(View<const int16_t, 3>::contiguous(given.data_ptr<int16_t>(), tail_shape(labels)),
                            View<int16_t, 3>::contiguous(native.data(), p.box.shape), parallel);
  const bool wide = *std::max_element(p.class_values.begin(), p.class_values.end()) > 255;
  return wide ? place_labels<uint16_t>(native, p) : place_labels<uint8_t>(native, p);
}

Volume restore_map(const torch::Tensor& map, const Preprocessed& p, float outside, const ParallelFor& parallel) {
  if ((map.dim() != 3 && map.dim() != 4) || !map.is_floating_point())
    throw ArgumentError("restore_map: " + p.id + ": the map is " + shape_text(map) +
                        ", expected floats [Z, Y, X] or [C, Z, Y, X]");
  require_shape("restore_map", map, p);
  const torch::Tensor given = map.to(torch::kCPU, torch::kFloat).contiguous();
  const Shape shape = tail_shape(map);
  const int64_t voxels = shape[0] * shape[1] * shape[2];
  Volume out = Volume::zeros(p.source, DType::kF32, map.dim() == 4 ? map.size(0) : 1);
  out.header = p.header;
  std::fill(out.as<float>().begin(), out.as<float>().end(), outside);
  for (int64_t c = 0; c < out.channels; ++c) {
    const auto whole = View<float, 3>::contiguous(out.as<float>().data() + c * p.source.voxels(), p.source.shape);
    resample_linear(View<const float, 3>::contiguous(given.data_ptr<float>() + c * voxels, shape),
                    crop(reorient(whole, p.orientation), p.box), Antialias::kOff, parallel);
  }
  return out;
}

}  // namespace fovea::data
