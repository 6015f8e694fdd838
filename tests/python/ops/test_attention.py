"""Dense attention against torch's SDPA (math) and the plain composition."""
import os
import random

import pytest
import torch
import torch.nn.functional as F
from composition import attention, attention_weights
from torch.nn.attention import SDPBackend, sdpa_kernel

import fovea

FULL = os.environ.get("FOVEA_FULL") == "1"


def error(a, b):
    """Largest difference, in units of the largest magnitude where that exceeds 1 (sums over many queries do)."""
    if b.numel() == 0:
        return 0.0
    return ((a.double() - b).abs().max() / b.abs().max().clamp(min=1)).item()


def run(function, inputs, grad_out, **options):
    """out and the gradient of every floating input."""
    inputs = [t if t is None else t.detach().clone().requires_grad_() for t in inputs]
    out = function(*inputs, **options)
    out = out[0] if isinstance(out, tuple) else out
    out.backward(grad_out.to(out.dtype))
    return [out.detach()] + [t.grad for t in inputs if t is not None]


def random_case(rng):
    size = lambda: rng.choice([1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 100])
    batch, groups, kv_heads, n, m = rng.randint(1, 3), rng.randint(1, 3), rng.randint(1, 3), size(), size()
    channels, value_channels = rng.randint(1, 70), rng.randint(1, 70)
    heads = groups * kv_heads
    q = torch.randn(batch, heads, n, channels)
    k, v = torch.randn(batch, kv_heads, m, channels), torch.randn(batch, kv_heads, m, value_channels)
    bias = None
    if rng.random() < 0.5:
        bias = torch.randn([s if rng.random() < 0.6 else 1 for s in (batch, heads, n, m)][rng.randint(0, 3):])
    options = dict(causal=rng.random() < 0.4, key_mask=torch.rand(batch, m) > 0.3 if rng.random() < 0.4 else None,
                   scale=rng.choice([None, None, 0.3]))
    return [q, k, v, bias], options, torch.randn(batch, heads, n, value_channels)


def terms(q, k, v, bias, grad_out, options):
    """The largest sum of absolute terms behind each gradient: what rounding errors are proportional to."""
    w = attention_weights(q, k, bias, **options)
    group = q.shape[1] // k.shape[1]
    wide_k, wide_v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    grad_w = grad_out @ wide_v.transpose(-2, -1)  # ds = w (grad_w - delta), delta = sum_j w grad_w
    ds = w * (grad_w.abs() + (w * grad_w).sum(-1, keepdim=True).abs())
    sums = [ds @ wide_k.abs(), ds.transpose(-2, -1) @ q.abs(), w.transpose(-2, -1) @ grad_out.abs()]
    scale = q.shape[-1] ** -0.5 if options["scale"] is None else options["scale"]
    scales = [scale, scale * group, group]
    if bias is not None:
        sums.append(ds.sum_to_size(bias.shape)), scales.append(1)
    return [x.abs().max().item() * f for x, f in zip(sums, scales)]


# R4.1: unit-normal inputs, then peaked rows (q times 8).
@pytest.mark.parametrize("factor, forward_bound, gradient_bound", [(1, 2e-6, 5e-6), (8, 5e-5, 5e-4)])
def test_float32_error_against_float64(factor, forward_bound, gradient_bound):
    for seed in range(10_000 if FULL else 100):
        torch.manual_seed(seed)
        inputs, options, grad_out = random_case(random.Random(seed))
        inputs[0] = inputs[0] * factor
        wide = [t if t is None else t.double() for t in inputs]
        exact = run(attention, wide, grad_out, **options)
        got = run(fovea.attention, inputs, grad_out, **options)
        case = (seed, [None if t is None else list(t.shape) for t in inputs], options)
        assert error(got[0], exact[0]) <= forward_bound, case
        # Summed over all keys of a query, ds is 0: a bias broadcast along the keys, and one to four keys, have
        # gradients that are what rounding leaves of large terms. Those are judged by the terms, others by the bound.
        m, bias = inputs[1].shape[2], inputs[3]
        for i, size in enumerate(terms(*wide, grad_out.double(), options)):
            cancels = m < 5 or (i == 3 and (bias.ndim == 0 or bias.shape[-1] == 1))
            difference = (got[1 + i].double() - exact[1 + i]).abs().max().item()
            bound = gradient_bound * (max(1, size) if cancels else max(1, exact[1 + i].abs().max().item()))
            assert difference <= bound, (case, "qkvb"[i], size)


def test_float64_equals_the_composition_to_1e_12():
    for seed in range(20):
        torch.manual_seed(seed)
        inputs, options, grad_out = random_case(random.Random(seed))
        inputs = [t if t is None else t.double() for t in inputs]
        exact = run(attention, inputs, grad_out, **options)
        assert max(map(error, run(fovea.attention, inputs, grad_out, **options), exact)) <= 1e-12, seed


def test_bfloat16_error_is_at_most_that_of_torch_in_bfloat16():
    for seed in range(20):
        torch.manual_seed(seed)
        inputs, options, grad_out = random_case(random.Random(seed))
        inputs = [t if t is None else t.bfloat16() for t in inputs]
        grad_out = grad_out.bfloat16()
        exact = run(attention, [t if t is None else t.double() for t in inputs], grad_out, **options)
        torch_error = list(map(error, run(attention, inputs, grad_out, **options), exact))
        got = run(fovea.attention, inputs, grad_out, **options)
        assert got[0].dtype == torch.bfloat16 and fovea.attention(*inputs, **options)[1].dtype == torch.float32
        # 1.5x of R4.1, plus one rounding of the result itself where torch happens to hit the exact value.
        assert all(e <= 1.5 * t + 2**-8 for e, t in zip(map(error, got, exact), torch_error)), (seed, torch_error)


def test_key_mask_has_the_polarity_of_sdpa_true_takes_part():
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    mask = torch.tensor([[True, False, True, True, False, True], [False, True, True, False, False, False]])
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
    torch.testing.assert_close(fovea.attention(q, k, v, key_mask=mask)[0], expected, atol=2e-6, rtol=0)


def test_grouped_heads_and_bias_equal_sdpa():
    q, k, v, bias = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(1, 6, 5, 7)
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.2, enable_gqa=True)
    torch.testing.assert_close(fovea.attention(q, k, v, bias, scale=0.2)[0], expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("n, m", [(5, 5), (3, 7), (7, 3)])
def test_causal_is_aligned_at_the_bottom_right(n, m):
    q, k, v = torch.randn(1, 2, n, 8), torch.randn(1, 2, m, 8), torch.randn(1, 2, m, 8)
    visible = torch.arange(m)[None, :] <= torch.arange(n)[:, None] + m - n
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=visible).nan_to_num(0.0)
    torch.testing.assert_close(fovea.attention(q, k, v, causal=True)[0], expected, atol=2e-6, rtol=0)


def test_rows_are_the_weights_that_the_op_used():
    q, k, v = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 11, 8), torch.randn(2, 2, 11, 8)
    bias, mask, queries = torch.randn(4, 9, 11), torch.rand(2, 11) > 0.3, torch.tensor([8, 0, 3, 3])
    rows = fovea.attention_rows(q, k, queries, bias, mask, causal=True)
    exact = attention_weights(q.double(), k.double(), bias.double(), mask, causal=True)[:, :, queries]
    assert (rows - exact).abs().max() <= 2e-6 and ((rows == 0) == (exact == 0)).all() and (rows >= 0).all()
    assert ((rows.sum(-1) - 1).abs() <= 1e-5).logical_or(exact.sum(-1) == 0).all()
    out, _ = fovea.attention(q, k, v, bias, mask, causal=True)
    torch.testing.assert_close(rows @ v.repeat_interleave(2, 1), out[:, :, queries], atol=2e-6, rtol=0)
    assert fovea.attention_rows(q.bfloat16(), k.bfloat16(), queries).dtype == torch.float32


def test_lse_is_the_log_of_the_sum_of_exponentials():
    q, k = torch.randn(1, 2, 5, 8).double(), torch.randn(1, 2, 7, 8).double()
    _, lse = fovea.attention(q, k, k, scale=0.5)
    torch.testing.assert_close(lse, (0.5 * q @ k.transpose(-2, -1)).logsumexp(-1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_what_lies_behind_the_mask_changes_no_bit(poison):
    q, k, v, grad_out = (torch.randn(2, 2, n, 8) for n in (5, 40, 40, 5))
    mask = torch.rand(2, 40) > 0.4
    clean = run(fovea.attention, [q, k, v, None], grad_out, key_mask=mask)
    outside = ~mask[:, None, :, None].expand_as(k)
    poisoned = [q, k.masked_fill(outside, poison), v.masked_fill(outside, poison), None]
    dirty = run(fovea.attention, poisoned, grad_out, key_mask=mask)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty))
    assert (dirty[2][outside] == 0).all() and (dirty[3][outside] == 0).all()


def test_non_contiguous_inputs_give_the_same_bits():
    base = [torch.randn(2, 3, 9, 8) for _ in range(3)]
    grad_out = torch.randn(2, 3, 9, 8)
    expected = run(fovea.attention, base + [None], grad_out)

    def packed(i):  # tokens first, three in one buffer, as a qkv Linear leaves them
        return torch.stack([t.transpose(1, 2) for t in base], 2)[:, :, i].transpose(1, 2)

    def strided_channels(i):
        return base[i].repeat_interleave(2, -1)[..., ::2]

    for layout in (packed, strided_channels):
        q, k, v = (layout(i).requires_grad_() for i in range(3))
        assert not q.is_contiguous()
        out, _ = fovea.attention(q, k, v)
        out.backward(grad_out.transpose(2, 3).contiguous().transpose(2, 3))
        assert all(torch.equal(a, b) for a, b in zip(expected, [out, q.grad, k.grad, v.grad]))


def test_output_lies_in_memory_as_the_query_does():
    x = torch.randn(2, 5, 3 * 16, requires_grad=True)
    q = x.unflatten(-1, (3, 16)).transpose(1, 2)
    out, _ = fovea.attention(q, q, q)
    assert out.transpose(1, 2).is_contiguous()
    assert fovea.attention(q.contiguous(), q, q)[0].is_contiguous()


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4)])
def test_empty_batch_heads_or_queries(shape):
    q = torch.randn(shape, requires_grad=True)
    k = torch.randn(shape[0], max(1, shape[1]), 5, 4, requires_grad=True)
    out, lse = fovea.attention(q, k, k)
    out.sum().backward()
    assert out.shape == shape and lse.shape == shape[:3] and (k.grad == 0).all()


def test_no_keys_at_all():
    q, k = torch.randn(1, 2, 3, 4, requires_grad=True), torch.randn(1, 2, 0, 4, requires_grad=True)
    out, lse = fovea.attention(q, k, k)
    out.sum().backward()
    assert (out == 0).all() and torch.isneginf(lse).all() and (q.grad == 0).all() and k.grad.shape == k.shape


def test_autocast_computes_in_bfloat16_and_leaves_bias_and_float64():
    q, bias = torch.randn(1, 2, 5, 8, requires_grad=True), torch.randn(2, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out, lse = fovea.attention(q, q, q, bias)
        wide, _ = fovea.attention(q.double(), q.double(), q.double())
        rows = fovea.attention_rows(q, q, torch.tensor([2]), bias)
    b = q.bfloat16()
    assert torch.equal(out, fovea.attention(b, b, b, bias)[0])
    assert lse.dtype == torch.float32 and wide.dtype == torch.float64
    assert torch.equal(rows, fovea.attention_rows(b, b, torch.tensor([2]), bias))
    out.float().sum().backward()
    assert q.grad.dtype == torch.float32 and bias.grad.dtype == torch.float32


def test_bits_do_not_depend_on_threads_or_on_the_run(threads):
    inputs = [torch.randn(s) for s in ((2, 4, 65, 24), (2, 2, 130, 24), (2, 2, 130, 24), (1, 4, 1, 130))]
    grad_out = torch.randn(2, 4, 65, 24)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        cast = [t.to(dtype) for t in inputs]
        results = []
        for count in (1, 2, 2, 3):
            threads(count)
            results.append(run(fovea.attention, cast, grad_out, causal=True))
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))
