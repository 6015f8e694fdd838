#pragma once
#include <torch/torch.h>

#include <vector>

// What `fovea check`, `fovea claims` and the lessons find out about scores and softmax, each computed in one place.
namespace fovea::recipes {

/// Softmax of one query over `keys` keys, all entries normal with mean 0 and deviation 1: means over the draws. `error`
/// fields are standard errors of the means.
struct ScoreStatistics {
  int64_t channels = 0;
  double variance = 0;  // of the dot products that softmax sees
  double largest_weight = 0, largest_weight_error = 0;
  double gradient_mass = 0, gradient_mass_error = 0;  // sum_j p_j (1 - p_j): the trace of the softmax's Jacobian
  double entropy_nats = 0, entropy_nats_error = 0;
};

struct ScoreDraws {
  int64_t draws = 2000, keys = 64;
  uint64_t seed = 0;
};

/// The same draws with dot products as they are and times 1 / sqrt(C). Weights come from the op (attention_rows).
struct Scaling {
  ScoreStatistics unscaled, scaled;
};
Scaling compare_scaling(int64_t channels, const ScoreDraws& draws = {});

/// The same draws one by one, for pictures.
struct ScoreDetail {
  torch::Tensor scores;  // [draws * keys], as softmax sees them
  torch::Tensor ranked;  // [keys]: mean of the largest weight, of the second largest, ...
};
ScoreDetail draw_scores(int64_t channels, bool scaled, const ScoreDraws& draws = {});

/// The textbook's two queries and three keys: q1 is like k1 and k3, not like k2. Or any others: q [N,C], k [M,C], v [M],
/// in double.
struct WorkedExample {
  torch::Tensor weights;  // [2,3], of the op
  torch::Tensor out;      // [2], for values 1, 10, 2
};
WorkedExample worked_example();
WorkedExample work_example(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v);

/// Largest differences over `shapes` random shapes, self and cross, one or several heads: the op in double and in float
/// against softmax(q k^T / sqrt(C)) v written with torch's operators in double.
struct DefinitionErrors {
  double f64 = 0, f32 = 0;
};
DefinitionErrors attention_against_definition(int64_t shapes, uint64_t seed);

/// The same with what attention() can do beside: forward and gradients of q, k, v and bias over `shapes` random shapes
/// and choices of mask, bias, causal, window, grouped heads, soft cap, slopes, dropout and packed lengths, against torch's
/// operators in double. Relative to the largest magnitude where that exceeds 1.
struct OptionErrors {
  double forward_f64 = 0, gradient_f64 = 0;
  // Our error in units of that of torch's operators in the same dtype, less a floor for where these happen to hit the
  // exact value: 1e-6 (gradients 1e-5), of bfloat16 half a rounding (one).
  double forward_f32 = 0, gradient_f32 = 0, forward_bf16 = 0, gradient_bf16 = 0;
};
OptionErrors attention_options_against_definition(int64_t shapes, uint64_t seed);

/// Softmax rows of the op in double as budgets.
struct Budget {
  double sum_error = 0;  // largest |sum - 1|
  double smallest_weight = 1;
  int64_t pairs_out_of_order = 0;       // a larger score with a smaller weight
  double effective_keys = 0;            // mean of exp(entropy)
  double shift_change = 0;              // largest change of a weight when a constant is added to its row
  int64_t raised_without_lowering = 0;  // other weights that do not fall when one score is raised
  int64_t over_budget = 0;              // rows with more than 1/t weights of at least t, over several t
};
Budget softmax_budget(int64_t rows, int64_t keys, uint64_t seed);

/// Mean entropy in nats of softmax(s / temperature) over rows of 64 normal scores s.
double entropy_at_temperature(double temperature, uint64_t seed);

/// Memory of this process that global attention of one head over n tokens takes beside its inputs; negative: cannot be
/// measured here.
struct AttentionBytes {
  double forward = -1;   // with the output
  double training = -1;  // forward and backward, with output and gradients
};
AttentionBytes global_attention_bytes(int64_t tokens, int64_t channels);

/// Associative recall: 16 pairs of a key and a value; the pair with the asked key is to be found by one attention head
/// and its value named. Keys and queries have unit-normal entries before the training, which is 200 steps of SGD.
struct Recall {
  double gradient_mass = 0;  // mean of sum_j p_j (1 - p_j) before the training
  double gradient_norm = 0;  // of the query projection in the first step
  double accuracy = 0;       // on fresh sets; 1/8 is chance
};
/// scaled: dot products times 1 / sqrt(C), else as they are. Cost: some tenths of a second.
Recall learn_recall(bool scaled, int64_t channels, uint64_t seed);

}  // namespace fovea::recipes
