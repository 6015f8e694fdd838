#pragma once
#include <filesystem>

#include <torch/torch.h>

namespace fovea::data {

/// Grey images and one class each.
struct LabelledImages {
  torch::Tensor images;  // [N,Y,X] f32: pixels / 255, less their mean, over their deviation (of `like`, if given)
  torch::Tensor labels;  // [N] int64
  float mean = 0, deviation = 1;
};

/// A pair of IDX files, plain or gzip. `like`: whose mean and deviation to use, as test images take those of training.
/// Errors  IoError: see io::read_idx; images that are not [N,Y,X] or labels that are not [N], another N, no image.
LabelledImages read_labelled_images(const std::filesystem::path& images, const std::filesystem::path& labels,
                                    const LabelledImages* like = nullptr);

/// Fashion-MNIST: 60 000 + 10 000 grey images of 28 x 28 pixels, 10 classes of clothing.
/// Source  Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747
struct FashionMnist {
  LabelledImages train, test;
};
/// From fashion-mnist in io::data_folder(), else where Debian's dataset-fashion-mnist puts it.
/// Errors  IoError that names the package if it is not there.
FashionMnist read_fashion_mnist();

/// 10 000 handwritten digits of 28 x 28 pixels (`scripts/data mnist`): the first 7000 for training, the others for tests,
/// with the mean and deviation of the training part. No official split of MNIST.
/// Errors  IoError that says how to fetch them if they are not there.
struct MnistDigits {
  LabelledImages train, test;
};
MnistDigits read_mnist_digits();
/// Whether they are there.
bool has_mnist_digits();

}  // namespace fovea::data
