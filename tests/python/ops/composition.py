"""The operators written out in plain torch, with every N×N tensor in memory: what the fused ones are compared with.

Independent of the library's own reference kernel; precision is that of the arguments.
"""
import itertools

import numpy
import torch
import torch.nn.functional as F


def scores_mask(shape, key_mask=None, causal=False, window_left=-1, window_right=-1):
    """True where a key takes part: [B,1,N,M]."""
    batch, n, m = shape
    keep = torch.ones(batch, 1, n, m, dtype=torch.bool)
    if key_mask is not None:
        keep &= key_mask[:, None, None, :]
    behind = torch.arange(m)[None, :] - torch.arange(n)[:, None] - (m - n)  # of the key, from the query's place
    if causal:
        keep &= behind <= 0
    if window_left >= 0:
        keep &= behind >= -window_left
    if window_right >= 0:
        keep &= behind <= window_right
    return keep


def philox(counter, key):
    """Philox4x32-10 of Salmon et al. 2011: counter four arrays that broadcast, key two numbers; four arrays of 32 bits."""
    low = numpy.uint64(0xFFFFFFFF)
    c = [numpy.asarray(x, dtype=numpy.uint64) for x in counter]
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c[0] * numpy.uint64(0xD2511F53), c[2] * numpy.uint64(0xCD9E8D57)
        c = [(p1 >> numpy.uint64(32)) ^ c[1] ^ numpy.uint64(k0), p1 & low,
             (p0 >> numpy.uint64(32)) ^ c[3] ^ numpy.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return numpy.broadcast_arrays(*c)


def dropout_factors(shape, probability, seed):
    """[B,H,N,M]: 0 where the weight of query i and key j is dropped, else 1 / (1 - probability)."""
    b, h, i, j = numpy.ogrid[tuple(slice(0, s) for s in shape)]
    bits = philox([j, i // 4, h, b], (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    chosen = numpy.choose(numpy.broadcast_to(i % 4, shape), [numpy.broadcast_to(x, shape) for x in bits])
    return torch.from_numpy((chosen >= int(probability * 2**32)) / (1 - probability))


def softmax_or_zero(scores, keep):
    """Softmax over kept keys; a row without any is 0 and passes no gradient."""
    alive = keep.any(-1, keepdim=True)
    scores = scores.masked_fill(~keep, float("-inf")).masked_fill(~alive, 0.0)
    return scores.softmax(-1).masked_fill(~keep, 0.0)


def attention_weights(q, k, bias=None, key_mask=None, causal=False, scale=None, window_left=-1, window_right=-1,
                      softcap=0.0, alibi_slopes=()):
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = (q.shape[-1] ** -0.5 if scale is None else scale) * (q @ k.transpose(-2, -1))
    n, m = scores.shape[-2:]
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    if bias is not None:
        scores = scores + bias
    if len(alibi_slopes):
        distance = (torch.arange(m)[None, :] - torch.arange(n)[:, None] - (m - n)).abs()
        scores = scores - torch.tensor(alibi_slopes, dtype=scores.dtype)[:, None, None] * distance
    return softmax_or_zero(scores, scores_mask((q.shape[0], n, m), key_mask, causal, window_left, window_right))


def attention(q, k, v, bias=None, key_mask=None, causal=False, scale=None, dropout=0.0, dropout_seed=0, **options):
    weights = attention_weights(q, k, bias, key_mask, causal, scale, **options)
    if dropout:
        weights = weights * dropout_factors(weights.shape, dropout, dropout_seed).to(weights.dtype)
    return weights.to(v.dtype) @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)


def relative_position_index(window):
    """[n,n]: the row of the bias table for each (query, key) of a window, by enumeration."""
    positions = list(itertools.product(*(range(w) for w in window)))
    index = torch.empty(len(positions), len(positions), dtype=torch.long)
    for i, a in enumerate(positions):
        for j, b in enumerate(positions):
            row = 0
            for axis in range(3):
                row = row * (2 * window[axis] - 1) + a[axis] - b[axis] + window[axis] - 1
            index[i, j] = row
    return index


def window_partition(x, window):
    """[B,Z,Y,X,...] -> [B, windows, n, ...]"""
    b, z, y, c = x.shape[:4]
    wz, wy, wx = window
    rest = x.shape[4:]
    x = x.reshape(b, z // wz, wz, y // wy, wy, c // wx, wx, *rest)
    x = x.permute(0, 1, 3, 5, 2, 4, 6, *range(7, 7 + len(rest)))
    return x.reshape(b, -1, wz * wy * wx, *rest)


def window_reverse(x, window, padded):
    """[B, windows, n, ...] -> [B,Z,Y,X,...]"""
    rest = x.shape[3:]
    x = x.reshape(x.shape[0], *(p // w for p, w in zip(padded, window)), *window, *rest)
    x = x.permute(0, 1, 4, 2, 5, 3, 6, *range(7, 7 + len(rest)))
    return x.reshape(x.shape[0], *padded, *rest)


def region_ids(padded, window, shift):
    """Region of each position of the rolled grid: which stretch of the unrolled axis it came from."""
    region = torch.zeros(padded, dtype=torch.long)
    for axis in range(3):
        position = torch.arange(padded[axis])
        part = (position >= padded[axis] - window[axis]).long() + (position >= padded[axis] - shift[axis]).long()
        part = part * (shift[axis] > 0)
        region = region * 3 + part.view([-1 if a == axis else 1 for a in range(3)])
    return region


def window_attention(qkv, bias_table, window, shift, scale=None, pad_token=None, mask_value=None, bias=None):
    batch, *grid, _, heads, channels = qkv.shape
    padded = [-(-g // w) * w for g, w in zip(grid, window)]
    full = torch.zeros(1, dtype=qkv.dtype) if pad_token is None else pad_token
    full = full.expand(batch, *padded, 3, heads, channels).clone()
    full[:, : grid[0], : grid[1], : grid[2]] = qkv
    real = torch.zeros(1, *padded, dtype=torch.bool)
    real[:, : grid[0], : grid[1], : grid[2]] = True
    back = [-s for s in shift]
    axes = (1, 2, 3)
    q, k, v = window_partition(full.roll(back, axes), window).permute(3, 0, 1, 4, 2, 5)  # each [B, windows, H, n, C]
    scores = (channels**-0.5 if scale is None else scale) * (q @ k.transpose(-2, -1))
    if bias_table is not None:
        bias = bias_table[relative_position_index(window)].permute(2, 0, 1)
    if bias is not None:
        scores = scores + bias
    region = window_partition(region_ids(padded, window, shift)[None], window)
    same = (region[..., :, None] == region[..., None, :])[:, :, None]
    keep = torch.ones_like(same)
    if pad_token is None:
        keep = window_partition(real.roll(back, axes), window)[:, :, None, None, :]
    if mask_value is None:
        keep = keep & same
    else:
        scores = torch.where(same, scores, scores + mask_value)
    out = softmax_or_zero(scores, keep.expand_as(scores)).to(v.dtype) @ v  # [B, windows, H, n, C]
    out = window_reverse(out.transpose(2, 3).flatten(3), window, padded).roll(list(shift), axes)
    return out[:, : grid[0], : grid[1], : grid[2]]


def attention_pool(scores, values, offsets=None):
    """Softmax and sum, one bag after the other."""
    bounds = [0, len(values)] if offsets is None else offsets.tolist()
    bags = []
    for begin, end in zip(bounds, bounds[1:]):
        weights = softmax_or_zero(scores[begin:end].T, ~scores[begin:end].T.isneginf())  # [H, rows]
        bags.append(weights.to(values.dtype) @ values[begin:end])
    return torch.stack(bags) if bags else values.new_zeros(0, scores.shape[1], values.shape[1])


def deformable_attention(value, spatial_shapes, locations, weights):
    """grid_sample, level by level, as ms_deform_attn_core_pytorch of Deformable DETR does it in 2-D."""
    batch, _, heads, channels = value.shape
    queries, levels, points, axes = locations.shape[1], *locations.shape[3:]
    sizes = [tuple(s) for s in spatial_shapes.tolist()]
    samples = []
    for level, rows in enumerate(value.split([torch.Size(s).numel() for s in sizes], 1)):
        grid = rows.permute(0, 2, 3, 1).reshape(batch * heads, channels, *sizes[level])
        at = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1  # [B·H,Q,K,D] in [-1, 1]
        at = at if axes == 2 else at[:, :, None]
        sampled = F.grid_sample(grid, at, mode="bilinear", padding_mode="zeros", align_corners=False)
        samples.append(sampled.reshape(batch, heads, channels, queries, points))
    out = torch.einsum("bhcqlk,bqhlk->bqhc", torch.stack(samples, -2), weights.to(value.dtype))
    return out.flatten(2)


def axial_attention(qkv, axis, pair_bias=None, tied=False, mask=None, scale=None):
    """einsum over the alignment, turned so that residues are attended along."""
    if axis == "sequences":
        turned = None if mask is None else mask.transpose(1, 2)
        return axial_attention(qkv.transpose(1, 2), "residues", pair_bias, tied, turned, scale).transpose(1, 2)
    q, k, v = qkv.unbind(3)  # [B,R,L,H,C]
    rows, channels = q.shape[1], q.shape[-1]
    keep = torch.ones(qkv.shape[:3], dtype=torch.bool) if mask is None else mask
    if scale is None:
        scale = (channels * (rows if tied else 1)) ** -0.5
    bias = 0 if pair_bias is None else pair_bias
    if tied:
        zero = ~keep[..., None, None]
        q, k, v = (t.masked_fill(zero, 0.0) for t in (q, k, v))
        scores = scale * torch.einsum("brihc,brjhc->bhij", q, k) + bias
        weights = softmax_or_zero(scores, keep.any(1)[:, None, None, :].expand_as(scores))
        return torch.einsum("bhij,brjhc->brihc", weights.to(v.dtype), v).flatten(3)
    by_sample = pair_bias is not None and bias.ndim == 4
    scores = scale * torch.einsum("brihc,brjhc->brhij", q, k) + (bias[:, None] if by_sample else bias)
    weights = softmax_or_zero(scores, keep[:, :, None, None, :].expand_as(scores))
    return torch.einsum("brhij,brjhc->brihc", weights.to(v.dtype), v).flatten(3)
