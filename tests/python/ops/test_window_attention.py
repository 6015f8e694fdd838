"""Windowed attention against the plain composition, and against MONAI's own pieces."""
import math
import os
import random

import pytest
import torch
from composition import relative_position_index, window_attention
from test_attention import error

import fovea

FULL = os.environ.get("FOVEA_FULL") == "1"


def run(function, tensors, window, shift, grad_out, **options):
    """out and the gradient of every tensor given. tensors: qkv, bias_table, pad_token, bias."""
    qkv, table, pad, bias = (t if t is None else t.detach().clone().requires_grad_() for t in tensors)
    out = function(qkv, table, window, shift, pad_token=pad, bias=bias, **options)
    out = out[0] if isinstance(out, tuple) else out
    out.backward(grad_out.to(out.dtype))
    return [out.detach()] + [t.grad for t in (qkv, table, pad, bias) if t is not None]


def random_case(rng):
    window = [rng.randint(1, 4) for _ in range(3)]
    shift = [rng.randint(0, w - 1) for w in window]
    grid = [rng.randint(1, 9) for _ in range(3)]
    batch, heads, channels = rng.randint(1, 2), rng.randint(1, 3), rng.choice([1, 3, 8, 12, 16, 17, 32])
    n = window[0] * window[1] * window[2]
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
    kind = rng.choice(["table", "bias", "none"])
    tensors = [torch.randn(batch, *grid, 3, heads, channels), torch.randn(rows, heads) if kind == "table" else None,
               torch.randn(3, heads, channels) if rng.random() < 0.5 else None,
               torch.randn(heads, n, n) if kind == "bias" else None]
    options = dict(mask_value=rng.choice([None, -100.0, -2.0]), scale=rng.choice([None, 0.3]))
    return tensors, window, shift, options, torch.randn(batch, *grid, heads * channels)


def cast(tensors, dtype):
    return [t if t is None else t.to(dtype) for t in tensors]


@pytest.mark.parametrize("factor, forward_bound, gradient_bound", [(1, 2e-6, 5e-6), (8, 5e-5, 5e-4)])
def test_float32_error_against_float64(factor, forward_bound, gradient_bound):
    for seed in range(10_000 if FULL else 60):
        torch.manual_seed(seed)
        tensors, window, shift, options, grad_out = random_case(random.Random(seed))
        tensors[0][..., 0, :, :] *= factor
        exact = run(window_attention, cast(tensors, torch.double), window, shift, grad_out, **options)
        got = run(fovea.window_attention, tensors, window, shift, grad_out, **options)
        case = (seed, list(tensors[0].shape), window, shift, options)
        assert error(got[0], exact[0]) <= forward_bound, case
        assert error(got[1], exact[1]) <= gradient_bound, case
        # What all windows share collects their rounding errors as a random walk, also where the sums themselves cancel.
        windows = tensors[0].shape[0] * math.prod(-(-g // w) for g, w in zip(tensors[0].shape[1:4], window))
        assert max(map(error, got[2:], exact[2:]), default=0) <= gradient_bound * windows**0.5, case


def test_float64_equals_the_composition_to_1e_12():
    for seed in range(20):
        torch.manual_seed(seed)
        tensors, window, shift, options, grad_out = random_case(random.Random(seed))
        tensors = cast(tensors, torch.double)
        exact = run(window_attention, tensors, window, shift, grad_out, **options)
        got = run(fovea.window_attention, tensors, window, shift, grad_out, **options)
        assert max(map(error, got, exact)) <= 1e-12, (seed, window, shift, options)


def test_bfloat16_error_is_at_most_that_of_torch_in_bfloat16():
    for seed in range(20):
        torch.manual_seed(seed)
        tensors, window, shift, options, grad_out = random_case(random.Random(seed))
        tensors, grad_out = cast(tensors, torch.bfloat16), grad_out.bfloat16()
        exact = run(window_attention, cast(tensors, torch.double), window, shift, grad_out, **options)
        torch_error = list(map(error, run(window_attention, tensors, window, shift, grad_out, **options), exact))
        got = run(fovea.window_attention, tensors, window, shift, grad_out, **options)
        # 1.5x of R4.1, plus one rounding of the result itself where torch happens to hit the exact value.
        assert all(e <= 1.5 * t + 2**-8 for e, t in zip(map(error, got, exact), torch_error)), (seed, torch_error)


class MonaiWindows:
    """MONAI's SwinTransformerBlock.forward_part1 between norm1 and proj, from MONAI's own functions."""

    def __init__(self, dim, heads, window, shift):
        self.nets = pytest.importorskip("monai.networks.nets.swin_unetr", reason="monai is not installed")
        self.attention = self.nets.WindowAttention(dim, heads, window, qkv_bias=True)
        torch.nn.init.normal_(self.attention.relative_position_bias_table)
        torch.nn.init.normal_(self.attention.qkv.bias)
        self.attention.proj = torch.nn.Identity()
        self.heads, self.window, self.shift = heads, window, shift

    def clipped(self, grid):
        return self.nets.get_window_size(grid, self.window, self.shift)

    def __call__(self, x):
        grid = x.shape[1:4]
        window, shift = self.clipped(grid)
        pad = [(w - g % w) % w for g, w in zip(grid, window)]
        x = torch.nn.functional.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
        padded = x.shape[1:4]
        mask = self.nets.compute_mask(padded, window, shift, "cpu") if any(shift) else None
        x = x.roll([-s for s in shift], (1, 2, 3)) if any(shift) else x
        windows = self.attention(self.nets.window_partition(x, window), mask)
        x = self.nets.window_reverse(windows.view(-1, *window, x.shape[-1]), window, [x.shape[0], *padded])
        x = x.roll(shift, (1, 2, 3)) if any(shift) else x
        return x[:, : grid[0], : grid[1], : grid[2]].contiguous()

    def ours(self, x):
        """The same layer through the fused op, with MONAI's parameters."""
        window, shift = self.clipped(x.shape[1:4])
        a = self.attention
        qkv = a.qkv(x).unflatten(-1, (3, self.heads, -1))
        table, bias = a.relative_position_bias_table, None
        if window != tuple(self.window):  # MONAI looks the clipped window's token numbers up in the full window's index
            n = window[0] * window[1] * window[2]
            table, bias = None, table[a.relative_position_index[:n, :n]].permute(2, 0, 1)
        pad_token = a.qkv.bias.view(3, self.heads, -1)
        return fovea.window_attention(qkv, table, window, shift, pad_token=pad_token, mask_value=-100.0, bias=bias)[0]

    def gradients(self, function, x, grad_out):
        self.attention.zero_grad()
        x = x.clone().requires_grad_()
        out = function(x)
        out.backward(grad_out)
        return [out.detach(), x.grad] + [p.grad.clone() for p in self.attention.parameters()]


@pytest.mark.parametrize("grid, window, shift", [
    ((8, 8, 8), (4, 4, 4), (0, 0, 0)),
    ((8, 8, 8), (4, 4, 4), (2, 2, 2)),
    ((9, 7, 10), (4, 4, 4), (2, 2, 2)),   # padded and shifted
    ((6, 6, 6), (7, 7, 7), (3, 3, 3)),    # clipped on every axis: no shift, MONAI's index of the full window
    ((6, 9, 8), (7, 4, 4), (3, 2, 2)),    # clipped along Z only
    ((1, 13, 11), (1, 7, 7), (0, 3, 3)),  # a 2-D picture
])
def test_window_attention_equals_monai_forward_and_backward(grid, window, shift):
    monai = MonaiWindows(24, 3, window, shift)
    x, grad_out = torch.randn(2, *grid, 24), torch.randn(2, *grid, 24)
    expected = monai.gradients(monai, x, grad_out)
    for got, want in zip(monai.gradients(monai.ours, x, grad_out), expected):
        assert (got - want).abs().max() <= 1e-5 * want.abs().max().clamp(min=1)


def test_relative_position_rows_are_monais():
    monai = MonaiWindows(4, 1, (2, 3, 4), (0, 0, 0))
    index = monai.attention.relative_position_index
    assert torch.equal(index, relative_position_index((2, 3, 4)))
    # One query and the table as one-hot codes: the scores themselves are read back through lse differences.
    table = torch.zeros(3 * 5 * 7, 1, dtype=torch.double)
    qkv = torch.zeros(1, 2, 3, 4, 3, 1, 1, dtype=torch.double)
    table[:, 0] = torch.arange(105) / 100
    weights, _ = fovea.window_attention_rows(qkv, table, (2, 3, 4), (0, 0, 0), torch.arange(24))
    torch.testing.assert_close(weights[0, 0], table[index][..., 0].softmax(-1), atol=1e-12, rtol=0)


def test_one_window_is_dense_attention():
    qkv = torch.randn(2, 3, 4, 5, 3, 2, 8)
    out, lse = fovea.window_attention(qkv, None, (3, 4, 5), (0, 0, 0))
    q, k, v = qkv.flatten(1, 3).permute(2, 0, 3, 1, 4)
    dense, dense_lse = fovea.attention(q, k, v)
    torch.testing.assert_close(out.flatten(1, 3), dense.transpose(1, 2).flatten(2), atol=2e-6, rtol=0)
    torch.testing.assert_close(lse.flatten(2), dense_lse, atol=2e-6, rtol=0)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("mask_value", [None, -2.0])
def test_rows_name_their_keys_and_rebuild_the_output(pad, mask_value):
    grid, window, shift = (3, 5, 4), (2, 3, 2), (1, 1, 0)
    qkv, table = torch.randn(2, *grid, 3, 2, 4), torch.randn(45, 2)
    pad_token = torch.randn(3, 2, 4) if pad else None
    queries = torch.tensor([59, 0, 17, 31, 31])
    options = dict(pad_token=pad_token, mask_value=mask_value)
    weights, keys = fovea.window_attention_rows(qkv, table, window, shift, queries, **options)
    assert weights.shape == (2, 2, 5, 12) and keys.shape == (5, 12) and keys.dtype == torch.int64
    assert (weights.sum(-1) - 1).abs().max() <= 1e-5 and ((keys >= -1) & (keys < 60)).all()
    assert (keys == queries[:, None]).sum(-1).eq(1).all(), "a query is among its own keys, once"
    if not pad:
        assert (weights[:, :, keys == -1] == 0).all()
    v = qkv[..., 2, :, :].flatten(1, 3)[:, keys.clamp(min=0)]  # [B,R,n,H,C]
    if pad:
        v = torch.where((keys == -1)[None, :, :, None, None], pad_token[2], v)
    out, _ = fovea.window_attention(qkv, table, window, shift, **options)
    rebuilt = torch.einsum("bhrn,brnhc->brhc", weights, v).flatten(2)
    torch.testing.assert_close(rebuilt, out.flatten(1, 3)[:, queries], atol=2e-6, rtol=0)


def test_rows_of_an_empty_batch_still_name_their_keys():
    args = [None, (2, 2, 2), (1, 1, 1), torch.tensor([5, 0])]
    weights, keys = fovea.window_attention_rows(torch.randn(0, 4, 4, 4, 3, 2, 4), *args)
    _, expected = fovea.window_attention_rows(torch.randn(1, 4, 4, 4, 3, 2, 4), *args)
    assert weights.shape == (0, 2, 2, 8) and torch.equal(keys, expected)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_nothing_leaks_across_windows_or_regions(poison):
    """What a query may not see (other windows, other regions, the opposite face) changes no bit of its output."""
    grid, window, shift = (5, 6, 7), (3, 3, 3), (1, 1, 1)
    qkv = torch.randn(1, *grid, 3, 2, 8)
    clean = fovea.window_attention(qkv, None, window, shift)[0].flatten(1, 3)
    for query in random.Random(0).sample(range(5 * 6 * 7), 20):
        outside = outside_of(query, qkv, window, shift)
        out = fovea.window_attention(qkv.masked_fill(outside, poison), None, window, shift)[0].flatten(1, 3)
        assert torch.equal(out[0, query], clean[0, query])


def test_no_gradient_leaks_across_windows_or_regions():
    """Scores up to 3e8: beyond 1e9 rounding errors alone overflow exp(score - lse) in the other rows' gradients."""
    grid, window, shift = (5, 6, 7), (3, 3, 3), (1, 1, 1)
    qkv = torch.randn(1, *grid, 3, 2, 8)
    for query in random.Random(0).sample(range(5 * 6 * 7), 20):
        outside = outside_of(query, qkv, window, shift)
        dirty = qkv.masked_fill(outside, 1e4).requires_grad_()
        fovea.window_attention(dirty, None, window, shift)[0].flatten(1, 3)[0, query].sum().backward()
        assert (dirty.grad[outside] == 0).all() and (dirty.grad[~outside] != 0).any()


def outside_of(query, qkv, window, shift):
    """True for the elements of qkv whose token `query` does not attend to."""
    weights, keys = fovea.window_attention_rows(qkv, None, window, shift, torch.tensor([query]))
    seen = torch.zeros(qkv.shape[1:4].numel(), dtype=torch.bool)
    seen[keys[0][weights[0, 0, 0] > 0]] = True
    return (~seen).view(1, *qkv.shape[1:4], 1, 1, 1).expand_as(qkv)


def test_non_contiguous_inputs_give_the_same_bits():
    qkv, grad_out = torch.randn(2, 5, 4, 6, 3, 2, 8), torch.randn(2, 5, 4, 6, 16)
    table, pad = torch.randn(27, 2), torch.randn(3, 2, 8)
    expected = run(fovea.window_attention, [qkv, table, pad, None], (2, 2, 2), (1, 1, 1), grad_out)
    for layout in (lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),  # channels far apart
                   lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
                   lambda t: t.repeat_interleave(2, 0)[::2]):
        inputs = [layout(t).requires_grad_() for t in (qkv, table, pad)]
        out, _ = fovea.window_attention(inputs[0], inputs[1], (2, 2, 2), (1, 1, 1), pad_token=inputs[2])
        out.backward(layout(grad_out))
        assert all(torch.equal(a, b) for a, b in zip(expected, [out, *(t.grad for t in inputs)]))


@pytest.mark.parametrize("shape", [(0, 3, 3, 3, 3, 2, 4), (1, 0, 3, 3, 3, 2, 4), (1, 3, 3, 3, 3, 0, 4)])
def test_empty_batch_grid_or_heads(shape):
    qkv = torch.randn(shape, requires_grad=True)
    table = torch.randn(27, shape[5], requires_grad=True)
    out, lse = fovea.window_attention(qkv, table, (2, 2, 2), (1, 1, 1))
    out.sum().backward()
    assert out.shape == (*shape[:4], shape[5] * 4) and lse.shape == (shape[0], shape[5], *shape[1:4])
    assert (table.grad == 0).all() and qkv.grad.shape == shape


def test_autocast_computes_in_bfloat16_and_leaves_table_and_float64():
    qkv, table, pad = (torch.randn(s, requires_grad=True) for s in ((1, 3, 4, 5, 3, 2, 8), (27, 2), (3, 2, 8)))
    args = ((2, 2, 2), (1, 1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        out, lse = fovea.window_attention(qkv, table, *args, pad_token=pad)
        wide, _ = fovea.window_attention(qkv.double(), table.double(), *args, pad_token=pad.double())
        rows, _ = fovea.window_attention_rows(qkv, table, *args, torch.tensor([7]), pad_token=pad)
    assert wide.dtype == torch.float64 and lse.dtype == torch.float32
    b, b_pad = qkv.bfloat16(), pad.bfloat16()
    assert torch.equal(out, fovea.window_attention(b, table, *args, pad_token=b_pad)[0])
    assert torch.equal(rows, fovea.window_attention_rows(b, table, *args, torch.tensor([7]), pad_token=b_pad)[0])
    out.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in (qkv, table, pad))


def test_bits_do_not_depend_on_threads_or_on_the_run(threads):
    tensors = [torch.randn(2, 9, 8, 7, 3, 3, 12), torch.randn(343, 3), torch.randn(3, 3, 12), None]
    grad_out = torch.randn(2, 9, 8, 7, 36)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        results = []
        for count in (1, 2, 2, 3):
            threads(count)
            inputs = cast(tensors, dtype)
            results.append(run(fovea.window_attention, inputs, (4, 4, 4), (2, 2, 2), grad_out, mask_value=-1.0))
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))
