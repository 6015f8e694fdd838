#include "fovea/kernels/attention.h"

namespace fovea::kernels::cpu {

void attention_forward(const AttentionParams<float>& p, const ParallelFor& parallel, Isa) { reference::attention_forward(p, parallel); }
void attention_backward(const AttentionBackwardParams<float>& p, const ParallelFor& parallel, Isa) { reference::attention_backward(p, parallel); }
void attention_rows(const AttentionRowsParams<float>& p, const ParallelFor& parallel) { reference::attention_rows(p, parallel); }

}  // namespace fovea::kernels::cpu
