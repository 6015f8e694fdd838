#include "fovea/data/labelled_images.h"

#include <system_error>

#include "fovea/core/error.h"
#include "fovea/io/data_folder.h"
#include "fovea/io/idx_file.h"

namespace fovea::data {

namespace {
torch::Tensor bytes_of(const io::IdxArray& array) {
  return torch::from_blob(const_cast<std::byte*>(array.bytes.data()), array.shape, torch::kByte);
}
}  // namespace

LabelledImages read_labelled_images(const std::filesystem::path& images, const std::filesystem::path& labels,
                                    const LabelledImages* like) {
  const io::IdxArray pixels = io::read_idx(images), classes = io::read_idx(labels);
  if (pixels.shape.size() != 3)
    throw IoError(images, "has " + std::to_string(pixels.shape.size()) + " axes, expected 3 (images, rows, columns)");
  if (classes.shape.size() != 1)
    throw IoError(labels, "has " + std::to_string(classes.shape.size()) + " axes, expected 1");
  if (classes.shape[0] != pixels.shape[0])
    throw IoError(labels, "has " + std::to_string(classes.shape[0]) + " labels, expected " +
                              std::to_string(pixels.shape[0]) + ", one for each image of " + images.string());
  if (pixels.bytes.empty()) throw IoError(images, "has no image");
  LabelledImages all;
  all.images = bytes_of(pixels).to(torch::kFloat32) / 255;
  all.labels = bytes_of(classes).to(torch::kInt64);
  all.mean = like ? like->mean : all.images.mean().item<float>();
  all.deviation = like ? like->deviation : std::max(1e-6f, all.images.std().item<float>());
  all.images.sub_(all.mean).div_(all.deviation);
  return all;
}

FashionMnist read_fashion_mnist() {
  std::filesystem::path folder = io::data_folder() / "fashion-mnist";
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) folder = "/usr/share/datasets/fashion-mnist";
  if (!std::filesystem::is_regular_file(folder / "train-images-idx3-ubyte.gz", ignored))
    throw IoError(folder, "Fashion-MNIST is not there; install the Debian package dataset-fashion-mnist");
  FashionMnist sets;
  sets.train = read_labelled_images(folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz");
  sets.test =
      read_labelled_images(folder / "t10k-images-idx3-ubyte.gz", folder / "t10k-labels-idx1-ubyte.gz", &sets.train);
  return sets;
}

bool has_mnist_digits() { return io::find_data("mnist/digits-images-idx3-ubyte.gz").has_value(); }

MnistDigits read_mnist_digits() {
  constexpr int64_t kTrain = 7000;
  const auto folder = io::data_folder() / "mnist";
  if (!has_mnist_digits()) throw IoError(folder, "the digits are not there; run scripts/data mnist");
  const auto all = read_labelled_images(folder / "digits-images-idx3-ubyte.gz", folder / "digits-labels-idx1-ubyte.gz");
  if (all.images.size(0) <= kTrain) throw IoError(folder, "holds " + std::to_string(all.images.size(0)) + " digits, expected more than " + std::to_string(kTrain));
  MnistDigits sets;
  const auto part = all.images.slice(0, 0, kTrain);
  const float mean = part.mean().item<float>(), deviation = part.std().item<float>();
  const auto cut = [&](int64_t begin, int64_t end) {
    return LabelledImages{(all.images.slice(0, begin, end) - mean) / deviation, all.labels.slice(0, begin, end), all.mean + mean * all.deviation, deviation * all.deviation};
  };
  sets.train = cut(0, kTrain), sets.test = cut(kTrain, all.images.size(0));
  return sets;
}

}  // namespace fovea::data
