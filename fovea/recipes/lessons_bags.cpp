// bag-of-digits: the lesson on multiple-instance learning.
#include <algorithm>

#include "fovea/data/torch_tensor.h"
#include "fovea/recipes/digit_bags.h"
#include "fovea/recipes/lessons.h"
#include "fovea/report/colour.h"
#include "fovea/report/text.h"

namespace fovea::recipes {

namespace {
using report::printed;
constexpr int64_t kZoom = 2, kDigit = 28, kFrame = 6, kCell = kZoom * kDigit + 2 * kFrame;  // pixels

// Digits side by side; the redder and thicker a digit's frame, the more was read from it. target: marked by a bar below.
report::Raster strip(const std::string& title, const torch::Tensor& digits, const std::vector<double>& weights, const std::vector<bool>& tells) {
  const int64_t n = digits.size(0);
  report::Raster raster{title, report::Image::filled(kCell + kFrame, n * kCell, {255, 255, 255})};
  const auto grey = ((digits - digits.min()) / (digits.max() - digits.min()) * 255).to(torch::kUInt8).contiguous();
  const auto pixel = grey.accessor<uint8_t, 4>();
  const double heaviest = *std::max_element(weights.begin(), weights.end());
  for (int64_t i = 0; i < n; ++i) {
    const double share = weights[size_t(i)] / heaviest;
    for (int64_t y = 0; y < kCell; ++y)
      for (int64_t x = 0; x < kCell; ++x) {
        uint8_t* at = raster.image.at(y, i * kCell + x);
        const int64_t dy = y - kFrame, dx = x - kFrame;
        if (dy >= 0 && dx >= 0 && dy < kZoom * kDigit && dx < kZoom * kDigit) {
          std::fill(at, at + 3, pixel[i][0][dy / kZoom][dx / kZoom]);
        } else if (y > 0 && x > 0 && y < kCell - 1 && x < kCell - 1) {
          at[0] = 255, at[1] = at[2] = uint8_t(255 - 230 * share);
        }
      }
    for (int64_t y = kCell + 1; y < kCell + kFrame && tells[size_t(i)]; ++y)
      for (int64_t x = kFrame; x < kCell - kFrame; ++x) {
        uint8_t* at = raster.image.at(y, i * kCell + x);
        at[0] = 40, at[1] = 90, at[2] = 200;
      }
  }
  raster.width = 640, raster.height = 640.0 * double(kCell + kFrame) / double(n * kCell) + 34;
  return raster;
}

LessonResult bag_of_digits(const LessonArguments& a) {
  const auto digits = data::read_mnist_digits();
  DigitBagRun run;
  run.bags.bags = a.whole("bags", 20, 1000), run.bags.target = a.whole("target", 0, 9), run.seed = a.seed();
  const auto network = learn_digit_bags(run, digits.train, digits.test);

  // Which digit is read most in positive bags of digits that the network has not seen?
  DigitBagOptions fresh = run.bags;
  fresh.bags = 200;
  const DigitBags bags = draw_digit_bags(digits.test, fresh, a.seed() + 7'000'000);
  std::array<double, 10> read{}, count{};
  LessonResult r;
  int shown = 0;
  for (int64_t b = 0; b < fresh.bags; b += 2) {
    const auto rows = bags.rows(b);
    const int64_t first = bags.offsets[b].item<int64_t>();
    const auto weights = data::to_doubles(network->weights(rows, one_bag(rows.size(0))));
    std::vector<bool> tells;
    for (int64_t i = 0; i < rows.size(0); ++i) {
      const int64_t digit = digits.test.labels[bags.places[first + i].item<int64_t>()].item<int64_t>();
      read[size_t(digit)] += weights[size_t(i)], count[size_t(digit)] += 1;
      tells.push_back(bags.tells[first + i].item<bool>());
    }
    if (shown < 3) r.picture.push_back(strip(printed("positive bag %d: redder frame, more attention; blue bar: a %lld", ++shown, static_cast<long long>(fresh.target)), rows, weights, tells));
  }
  size_t most = 0;
  for (size_t d = 0; d < 10; ++d) {
    read[d] /= std::max(count[d], 1.0);
    if (read[d] > read[most]) most = d;
  }
  r.answers = {{{"the digit that attention reads most in positive bags", "阳性包中注意力读得最多的数字"}, double(most), 0.25}};
  r.found = {{printed("%lld bags, 500 fresh ones: AUC %.3f; AUC of the attention for that digit within positive bags %.3f; the heaviest digit is one in %.0f %% of them",
                      static_cast<long long>(run.bags.bags), run.auc, run.instance_auc, 100 * run.found),
              printed("%lld 个包训练，500 个新包测试：AUC %.3f；阳性包内注意力对该数字的 AUC %.3f；权重最大的数字正是它的比例 %.0f %%",
                      static_cast<long long>(run.bags.bags), run.auc, run.instance_auc, 100 * run.found)}};
  r.reason = {"Only bags had labels. The one thing that all positive bags share and all negative ones lack is this digit, so the sum Σ a_n h_n answers best when "
              "a_n is large there. Fewer bags hold less to learn it from: try --bags 50.",
              "只有包有标签。所有阳性包都有、所有阴性包都没有的，只有这个数字，所以当 a_n 在它那里最大时，Σ a_n h_n 才答得最好。包越少，可学的就越少：试试 --bags 50。"};
  report::BarPlot bars{"mean weight of a digit in positive bags", "", {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, {{"", {read.begin(), read.end()}}}};
  bars.width = 640, bars.height = 220;
  r.picture.push_back(bars);
  return r;
}
}  // namespace

std::vector<Lesson> bag_lessons() {
  return {{"bag-of-digits",
           "A2",
           {"A bag of digits", "一包数字"},
           {"Bags of about ten handwritten digits are called positive or negative; nobody says why. Which digit makes a bag positive, as the attention tells it?",
            "每包约十个手写数字，只说它是阳性还是阴性，不说为什么。从注意力看，是哪个数字使包成为阳性？"},
           "a_n = softmax_n(w·(tanh(V h_n) ⊙ σ(U h_n))),   z = Σ a_n h_n,   p = σ(c·z)",
           "multiple-instance.md",
           {{"What do all positive bags share that no negative bag has?", "所有阳性包共有、阴性包都没有的是什么？"},
            {"Try --bags 50: is the heaviest digit still the right one?", "试试 --bags 50：权重最大的还是对的数字吗？"}},
           {{"bags", "100", {"labelled bags to learn from", "用于训练的带标签的包数"}}, {"target", "9", {"the digit that makes a bag positive", "使包成为阳性的数字"}}},
           /*trains=*/true,
           "2 min",
           bag_of_digits}};
}

}  // namespace fovea::recipes
