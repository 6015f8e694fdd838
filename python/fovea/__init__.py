"""Fovea's attention operators for PyTorch: fused, differentiable, never an N×N tensor.

Importing loads libfovea_ops.so, which registers the torch ops ``fovea::…``. It is looked for in
``FOVEA_OPS_LIBRARY`` (the file), ``FOVEA_BUILD`` (a build folder) and this checkout's ``build/release``, in this order.

Letters: B batch, H heads, N/M query/key tokens, C channels per head, Z Y X grid. float32, float64 and bfloat16.
"""
import os
import pathlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "attention", "attention_packed", "attention_pool", "attention_rows", "axial_attention", "deformable_attention",
    "window_attention", "window_attention_rows", "library_path",
]


def _find_library() -> pathlib.Path:
    if file := os.environ.get("FOVEA_OPS_LIBRARY"):
        return pathlib.Path(file)
    build = os.environ.get("FOVEA_BUILD") or pathlib.Path(__file__).resolve().parents[2] / "build" / "release"
    return pathlib.Path(build) / "libfovea_ops.so"


#: The library that serves the operators.
library_path = _find_library()
if not library_path.is_file():
    raise ImportError(
        f"fovea: {library_path} does not exist, expected the operator library; run `make build`, "
        "or set FOVEA_OPS_LIBRARY to the file or FOVEA_BUILD to the build folder"
    )
torch.ops.load_library(str(library_path))
_ops = torch.ops.fovea


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    window_left: int = -1,
    window_right: int = -1,
    softcap: float = 0.0,
    alibi_slopes: Sequence[float] = (),
    dropout: float = 0.0,
    dropout_seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Dense attention, self or cross: softmax(scale · q kᵀ + bias) v.

    q [B,H,N,C]; k [B,Hk,M,C] and v [B,Hk,M,Cv], H a multiple of Hk; bias broadcastable to [B,H,N,M], its gradient has
    its own shape; key_mask bool [B,M], True = the key takes part. scale defaults to C^-0.5. Query i stands at key
    i + M − N: causal hides the keys behind that place, window_left and window_right keys further from it (negative: no
    limit), alibi_slopes [H] lower scores by slope · distance. softcap c > 0 puts c · tanh(score / c) in the place of
    scale · q kᵀ. dropout drops weights with that probability; which ones depends on dropout_seed and their place alone,
    so that backward drops the same.

    Returns out [B,H,N,Cv] and lse [B,H,N], the log of the sum of exp(scores), not differentiable. A query without any
    key gives out 0, lse −inf and no gradient.
    """
    return _ops.attention(q, k, v, bias, key_mask, causal, scale, window_left, window_right, softcap,
                          list(alibi_slopes), dropout, dropout_seed)


def attention_packed(
    q: Tensor, k: Tensor, v: Tensor, q_offsets: Sequence[int], k_offsets: Sequence[int], **options
) -> tuple[Tensor, Tensor]:
    """`attention` of sequences that lie one behind the other, without padding.

    q [N,H,C]; k [M,Hk,C], v [M,Hk,Cv]; sequence s holds tokens offsets[s] to offsets[s+1] − 1 (the cu_seqlens of flash
    attention as a list). options as in `attention`, from causal on; sequence s drops with dropout_seed + s.

    Returns out [N,H,Cv] and lse [N,H].
    """
    return _ops.attention_packed(q, k, v, list(q_offsets), list(k_offsets), **options)


def window_attention(
    qkv: Tensor,
    bias_table: Tensor | None,
    window: Sequence[int],
    shift: Sequence[int],
    scale: float | None = None,
    pad_token: Tensor | None = None,
    mask_value: float | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Windowed (Swin) attention on a 3-D grid, straight from the output of the qkv Linear.

    qkv [B,Z,Y,X,3,H,C]; window and shift in tokens along Z, Y, X; bias_table [(2wz−1)(2wy−1)(2wx−1), H] by displacement
    (Swin's and MONAI's table), or bias [H,n,n] for the n = wz·wy·wx tokens of a window, but not both.
    pad_token [3,H,C]: what positions hold that pad the grid to whole windows, and take part as keys (MONAI: the bias of
    the qkv Linear); None: they take no part. mask_value: added to scores across regions that the roll brought together
    (MONAI: −100); None: they never see each other. scale defaults to C^-0.5.

    Returns out [B,Z,Y,X,H·C] and lse [B,H,Z,Y,X], not differentiable.
    """
    return _ops.window_attention(qkv, bias_table, window, shift, scale, pad_token, mask_value, bias)


def attention_pool(scores: Tensor, values: Tensor, offsets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Softmax pooling of bags of rows of any size (attention-based multiple-instance learning), streamed.

    scores [N,H]; values [N,E]; offsets int64 [bags+1], ascending from 0 to N: bag b holds rows offsets[b] to
    offsets[b+1] - 1; None: one bag. Every head pools all E channels. A row of score -inf takes no part in that head.

    Returns out [bags,H,E] and lse [bags,H], not differentiable; the weight of a row is exp(scores - lse of its bag). A
    bag without rows that take part gives out 0, lse -inf and no gradient.
    """
    return _ops.attention_pool(scores, values, offsets)


def deformable_attention(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Multi-scale deformable attention, 2-D and 3-D: the weighted sum of values interpolated at locations.

    value [B,S,H,C], the levels one after the other; spatial_shapes int64 [Lv,2 or 3], sizes (Y, X) or (Z, Y, X);
    locations [B,Q,H,Lv,K,2 or 3], points (x, y) or (x, y, z) in [0, 1] between the outer faces of a level
    (align_corners=False), 0 outside; weights [B,Q,H,Lv,K], usually softmaxed over the last two axes.

    Returns out [B,Q,H·C].
    """
    return _ops.deformable_attention(value, spatial_shapes, locations, weights)


def axial_attention(
    qkv: Tensor,
    axis: str,
    pair_bias: Tensor | None = None,
    tied: bool = False,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention along one axis of an alignment, straight from the output of the qkv Linear.

    qkv [B,R,L,3,H,C], R sequences of L residues. axis: what tokens attend along, "residues" (within a sequence; the
    "row attention" of AlphaFold 2 and ESM) or "sequences" (across species at one position). tied: one map for all places of
    the other axis, its scores summed over them. pair_bias [n,n], [H,n,n] or [B,H,n,n] for the n tokens of the attended
    axis, shared by the places of the other one; mask bool [B,R,L], True = the token takes part. scale defaults to
    C^-0.5, tied to (C·places)^-0.5.

    Returns out [B,R,L,H·C].
    """
    return _ops.axial_attention(qkv, axis, pair_bias, tied, mask, scale)


def attention_rows(
    q: Tensor,
    k: Tensor,
    queries: Tensor,
    bias: Tensor | None = None,
    key_mask: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
    window_left: int = -1,
    window_right: int = -1,
    softcap: float = 0.0,
    alibi_slopes: Sequence[float] = (),
) -> Tensor:
    """The softmax rows that `attention` used for chosen queries (int64 [R]): weights [B,H,R,M], not differentiable."""
    return _ops.attention_rows(q, k, queries, bias, key_mask, scale, causal, window_left, window_right, softcap,
                               list(alibi_slopes))


def window_attention_rows(
    qkv: Tensor,
    bias_table: Tensor | None,
    window: Sequence[int],
    shift: Sequence[int],
    queries: Tensor,
    scale: float | None = None,
    pad_token: Tensor | None = None,
    mask_value: float | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The softmax rows that `window_attention` used for chosen queries, flat token indices (z·Y + y)·X + x, int64 [R].

    Returns weights [B,H,R,n] (0 for keys that take no part) and keys int64 [R,n]: the flat token index of each key,
    −1 for a padded position. Not differentiable.
    """
    return _ops.window_attention_rows(qkv, bias_table, window, shift, queries, scale, pad_token, mask_value, bias)
