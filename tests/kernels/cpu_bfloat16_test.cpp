#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "amx_support.h"
#include "cpu_support.h"
#include "problems.h"

// The vector kernels on bfloat16 tensors: widened on load, so that only the rounding of what is stored shows.
namespace fovea::kernels {
namespace {

using testing::Le;

/// One rounding of each result, and float32 arithmetic before it.
double stored_bound(const std::vector<double>& exact) { return kBf16 * 1.01 * largest(exact) + 1e-5; }

void expect_close(const std::vector<BFloat16>& a, const std::vector<double>& exact, double bound,
                  const std::string& what) {
  EXPECT_THAT(worst_difference(from_bf16(a), exact), Le(bound)) << what;
}

// What the stored output's rounding may do to the gradients, element by element. Where a row has
// more keys than a block, delta_i = <dO_i, out_i> reads the rounded output and errs by some e_i, so that
//   dS_ij = P_ij (dP_ij - delta_i) errs by -e_i P_ij,
//   dq_i by -e_i scale sum_j P_ij k_j,   dk_j by -scale sum_i e_i P_ij q_i:
// an attention output with keys as values, and a value gradient under e_i q_i from above. A causal row of one or two
// keys has weights near 1 and no rounding of the largest gradient bounds this.
struct DeltaRounding {
  std::vector<double> grad_q, grad_k;

  explicit DeltaRounding(const Bf16AttentionProblem& p) {
    const AttentionProblem<double>& e = p.exact;
    AttentionShape s = e.shape;
    const int64_t C = s.C, Cv = s.Cv, rows = s.B * s.H * s.N;
    std::vector<double> error(rows, 0.0);
    for (int64_t i = 0; i < rows * Cv; ++i) error[i / Cv] += e.grad_out[i] * (float(p.out[i]) - e.out[i]) * e.scale;
    s.Cv = C;
    AttentionProblem<double> keys(s, 0);
    keys.q = e.q, keys.k = keys.v = e.k, keys.bias = e.bias, keys.key_mask = e.key_mask;
    for (int64_t i = 0; i < rows * C; ++i) keys.grad_out[i] = error[i / C] * e.q[i];
    reference::attention_forward(keys.params()), reference::attention_backward(keys.backward_params());
    grad_k = keys.grad_v, grad_q = keys.out;
    for (int64_t i = 0; i < rows * C; ++i) grad_q[i] *= error[i / C];
  }
};

// The same for windows: the keys stand in for the values in qkv and pad_token.
struct WindowDeltaRounding {
  std::vector<double> grad_qkv, grad_pad_token;

  explicit WindowDeltaRounding(const Bf16WindowProblem& p) {
    const WindowProblem<double>& e = p.exact;
    const int64_t C = e.shape.C, row = e.shape.H * C, n = static_cast<int64_t>(e.out.size());
    WindowProblem<double> keys(e.shape, 0);
    keys.qkv = e.qkv, keys.pad_token = e.pad_token, keys.bias_table = e.bias_table, keys.bias = e.bias;
    for (std::vector<double>* x : {&keys.qkv, &keys.pad_token})
      for (size_t at = 0; at < x->size(); at += 3 * row) std::copy_n(&(*x)[at + row], row, &(*x)[at + 2 * row]);
    std::vector<double> error(n / C, 0.0);
    for (int64_t i = 0; i < n; ++i) error[i / C] += e.grad_out[i] * (float(p.out[i]) - e.out[i]) * e.scale;
    for (int64_t i = 0; i < n; ++i) keys.grad_out[i] = error[i / C] * e.qkv[i / row * 3 * row + i % row];
    reference::window_attention_forward(keys.params()), reference::window_attention_backward(keys.backward_params());
    grad_qkv.resize(e.qkv.size()), grad_pad_token.resize(e.pad_token.size());
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = i / row * 3 * row + i % row;
      grad_qkv[at] = error[i / C] * keys.out[i], grad_qkv[at + row] = keys.grad_qkv[at + 2 * row];
    }
    if (grad_pad_token.empty()) return;
    // Windows of few keys do not err: what the others add may not cancel. Sums of sizes bound any part of them.
    for (double& g : keys.grad_out) g = std::abs(g);
    reference::window_attention_backward(keys.backward_params());
    std::copy_n(&keys.grad_pad_token[2 * row], row, &grad_pad_token[row]);
  }
};

// Each element within one rounding of the stored result and what the rounded output did to it.
void expect_close(const std::vector<BFloat16>& a, const std::vector<double>& exact, const std::vector<double>& allowed,
                  const std::string& what) {
  for (size_t i = 0; i < exact.size(); ++i)
    ASSERT_LE(std::abs(double(float(a[i])) - exact[i]), stored_bound({exact[i]}) + 1.02 * std::abs(allowed[i])) << what;
}

TEST(CpuBfloat16, WindowAttentionIsTheFloatKernelWithRoundedResults) {
  for (int i = 0; i < sweep_length(40, 10000) && !HasFailure(); ++i) {
    Rng rng(20241101, 0, i);
    const WindowShape s = random_window_shape(rng, 5);
    for (const Isa isa : testable_isas()) {
      Bf16WindowProblem problem(s, i);
      cpu::window_attention_forward(problem.params(), serial_for, isa);
      cpu::window_attention_backward(problem.backward_params(), serial_for, isa);
      reference::window_attention_forward(problem.exact.params());
      reference::window_attention_backward(problem.exact.backward_params());
      const std::string what = name_of(isa) + " " + s.text();
      expect_close(problem.out, problem.exact.out, stored_bound(problem.exact.out), what + " out");
      EXPECT_THAT(relative_error(problem.lse, problem.exact.lse), Le(2e-6)) << what;
      const WindowDeltaRounding allowed(problem);
      expect_close(problem.grad_qkv, problem.exact.grad_qkv, allowed.grad_qkv, what + " qkv");
      expect_close(problem.grad_pad_token, problem.exact.grad_pad_token, allowed.grad_pad_token, what + " pad_token");
    }
  }
}

TEST(CpuBfloat16, DenseAttentionIsTheFloatKernelWithRoundedResults) {
  for (int i = 0; i < sweep_length(60, 10000) && !HasFailure(); ++i) {
    Rng rng(20241102, 0, i);
    const AttentionShape s = random_attention_shape(rng, i % 10 ? 60 : 180);
    for (const Isa isa : testable_isas()) {
      Bf16AttentionProblem problem(s, i);
      cpu::attention_forward(problem.params(), serial_for, isa);
      cpu::attention_backward(problem.backward_params(), serial_for, isa);
      reference::attention_forward(problem.exact.params());
      reference::attention_backward(problem.exact.backward_params());
      const std::string what = name_of(isa) + " " + s.text();
      const auto& e = problem.exact;
      expect_close(problem.out, e.out, stored_bound(e.out), what + " out");
      const DeltaRounding allowed(problem);
      expect_close(problem.grad_q, e.grad_q, allowed.grad_q, what + " q");
      expect_close(problem.grad_k, e.grad_k, allowed.grad_k, what + " k");
      expect_close(problem.grad_v, e.grad_v, stored_bound(e.grad_v), what + " v");
      EXPECT_THAT(relative_error(problem.grad_bias, e.grad_bias), Le(4 * kBf16)) << what;
    }
  }
}

TEST(CpuBfloat16, GivesTheSameBitsForAnyNumberOfThreads) {
  const WindowShape s{2, 3, 16, {9, 8, 7}, {4, 4, 4}, {2, 2, 2}, Bias::kTable, Padding::kToken, -100};
  for (const Isa isa : testable_isas()) {
    std::vector<BFloat16> first;
    for (const int parts : rerun_threads()) {
      Bf16WindowProblem problem(s, 7);
      cpu::window_attention_forward(problem.params(), threads(parts), isa);
      cpu::window_attention_backward(problem.backward_params(), threads(parts), isa);
      std::vector<BFloat16> result = problem.out;
      result.insert(result.end(), problem.grad_qkv.begin(), problem.grad_qkv.end());
      if (first.empty()) first = result;
      EXPECT_TRUE(equal_bits(first, result)) << name_of(isa) << ", " << parts << " threads";
    }
  }
}

// Many short sequences go head by head: the path that windows share.
TEST(CpuAttention, ManyShortSequencesMatchReferenceHoweverTheBiasIsShared) {
  for (const Broadcast broadcast :
       {Broadcast::kNone, Broadcast::kBatch, Broadcast::kBatchAndHeads, Broadcast::kQueries})
    for (const int64_t batch : {4, 70})
      for (const Isa isa : testable_isas()) {
        const AttentionShape s{batch, 3, 3, 37, 51, 16, 16, Bias::kDirect, broadcast};
        AttentionProblem<float> fast(s, 11);
        AttentionProblem<double> exact(fast);
        cpu::attention_forward(fast.params(), threads(2), isa), reference::attention_forward(exact.params());
        cpu::attention_backward(fast.backward_params(), threads(2), isa);
        reference::attention_backward(exact.backward_params());
        const std::string what = name_of(isa) + " " + s.text();
        EXPECT_THAT(relative_error(fast.out, exact.out), Le(2e-6)) << what;
        EXPECT_THAT(relative_error(fast.lse, exact.lse), Le(2e-6)) << what;
        EXPECT_THAT(relative_error(fast.grad_q, exact.grad_q), Le(5e-6)) << what;
        EXPECT_THAT(relative_error(fast.grad_k, exact.grad_k), Le(5e-6)) << what;
        EXPECT_THAT(relative_error(fast.grad_v, exact.grad_v), Le(5e-6)) << what;
        EXPECT_THAT(relative_error(fast.grad_bias, exact.grad_bias), Le(5e-6)) << what;
      }
}

}  // namespace
}  // namespace fovea::kernels
