#include "fovea/kernels/window_attention.h"

namespace fovea::kernels::cpu {

void window_attention_forward(const WindowAttentionParams<float>& p, const ParallelFor& parallel) {
  reference::window_attention_forward(p, parallel);
}
void window_attention_backward(const WindowAttentionBackwardParams<float>& p, const ParallelFor& parallel) {
  reference::window_attention_backward(p, parallel);
}
void window_attention_rows(const WindowAttentionRowsParams<float>& p, const ParallelFor& parallel) {
  reference::window_attention_rows(p, parallel);
}

}  // namespace fovea::kernels::cpu
