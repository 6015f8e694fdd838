"""Softmax pooling against torch's softmax, bag by bag."""
import random

import pytest
import torch
from composition import attention_pool

import fovea


def error(a, b):
    return ((a.double() - b).abs().max() / b.abs().max().clamp(min=1)).item() if b.numel() else 0.0


def run(function, scores, values, offsets, grad_out):
    inputs = [t.detach().clone().requires_grad_() for t in (scores, values)]
    out = function(*inputs, offsets)
    out = out[0] if isinstance(out, tuple) else out
    return [out.detach(), *torch.autograd.grad(out, inputs, grad_out.to(out.dtype))]


def random_case(rng):
    sizes = [rng.choice([0, 1, 2, 31, 32, 33, 100, 1024, 1025, 2500]) for _ in range(rng.randint(1, 5))]
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    heads, channels = rng.randint(1, 6), rng.randint(1, 130)
    return (torch.randn(sum(sizes), heads), torch.randn(sum(sizes), channels), offsets,
            torch.randn(len(sizes), heads, channels))


# R4.1: unit-normal inputs, then peaked weights (scores times 8).
@pytest.mark.parametrize("factor, forward_bound, gradient_bound", [(1, 2e-6, 5e-6), (8, 5e-5, 5e-4)])
def test_float32_error_against_float64(factor, forward_bound, gradient_bound):
    for seed in range(60):
        torch.manual_seed(seed)
        scores, values, offsets, grad_out = random_case(random.Random(seed))
        scores *= factor
        scores[torch.rand_like(scores) < 0.05] = float("-inf")
        exact = run(attention_pool, scores.double(), values.double(), offsets, grad_out.double())
        got = run(fovea.attention_pool, scores, values, offsets, grad_out)
        assert error(got[0], exact[0]) <= forward_bound, (seed, offsets)
        for a, b in zip(got[1:], exact[1:]):
            assert error(a, b) <= gradient_bound, (seed, offsets)


def test_lse_gives_the_weights_that_were_used():
    scores, values, offsets = torch.randn(50, 3), torch.randn(50, 8), torch.tensor([0, 20, 50])
    out, lse = fovea.attention_pool(scores, values, offsets)
    weights = (scores - lse.repeat_interleave(offsets.diff(), 0)).exp()
    bags = [w.T @ v for w, v in zip(weights.split([20, 30]), values.split([20, 30]))]
    torch.testing.assert_close(torch.stack(bags), out)
    torch.testing.assert_close(weights.split([20, 30])[0].sum(0), torch.ones(3))


def test_gated_attention_as_ilse_writes_it_equals_the_textbook_form():
    h = torch.randn(120, 64)
    v, u, w = torch.randn(32, 64), torch.randn(32, 64), torch.randn(1, 32)
    scores = (torch.tanh(h @ v.T) * torch.sigmoid(h @ u.T)) @ w.T  # [N,1]
    z = torch.softmax(scores.T, 1) @ h
    torch.testing.assert_close(fovea.attention_pool(scores, h)[0][0], z)


def test_scores_may_lie_head_by_head_as_clam_keeps_them():
    scores, values = torch.randn(3, 70), torch.randn(70, 11)
    expected = fovea.attention_pool(scores.T.contiguous(), values)[0]
    assert torch.equal(fovea.attention_pool(scores.T, values)[0], expected)
    wide = torch.randn(70, 22)
    wide[:, ::2] = values
    assert torch.equal(fovea.attention_pool(scores.T, wide[:, ::2])[0], expected)


def test_an_empty_bag_gives_zero_and_a_finite_gradient_for_the_others():
    scores, values = torch.randn(4, 2, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    out, lse = fovea.attention_pool(scores, values, torch.tensor([0, 0, 4, 4]))
    assert (out[0] == 0).all() and (out[2] == 0).all() and torch.isneginf(lse[0]).all() and torch.isneginf(lse[2]).all()
    out.sum().backward()
    assert scores.grad.isfinite().all() and torch.allclose(values.grad.sum(), torch.tensor(2.0 * 3))


def test_bfloat16_is_the_float32_result_rounded():
    scores, values = torch.randn(40, 2), torch.randn(40, 9).bfloat16()
    wide, wide_lse = fovea.attention_pool(scores, values.float())
    for given in (scores, scores.bfloat16()):
        out, lse = fovea.attention_pool(given, values)
        assert out.dtype == torch.bfloat16 and lse.dtype == torch.float32
    out, lse = fovea.attention_pool(scores, values)
    assert torch.equal(out, wide.bfloat16()) and torch.equal(lse, wide_lse)


def test_autocast_pools_bfloat16_values_under_float32_scores():
    scores, values = torch.randn(40, 2), torch.randn(40, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = fovea.attention_pool(scores, values)
    assert torch.equal(out, fovea.attention_pool(scores, values.bfloat16())[0])
    out.sum().backward()
    assert values.grad.dtype == torch.float32


def test_threads_do_not_change_a_bit(threads):
    scores, values = torch.randn(9000, 3), torch.randn(9000, 40)
    offsets, grad_out = torch.tensor([0, 10, 6000, 9000]), torch.randn(3, 3, 40)
    threads(1)
    one = run(fovea.attention_pool, scores, values, offsets, grad_out)
    threads(2)
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(one, run(fovea.attention_pool, scores, values, offsets, grad_out)))


SHAPES = "; scores [5,2], values [5,3], offsets [3]"


@pytest.mark.parametrize("scores, values, offsets, message", [
    (torch.ones(5), torch.ones(5, 3), None, "scores has 1 axes, expected 2, [N,H]; scores [5], values [5,3]"),
    (torch.ones(4, 2), torch.ones(5, 3), None,
     "scores has 4 rows, expected 5 (the rows of values); scores [4,2], values [5,3]"),
    (torch.ones(5, 2).double(), torch.ones(5, 3), None,
     "scores is float64, expected float32 (values is float32); scores [5,2], values [5,3]"),
    (torch.ones(5, 2), torch.ones(5, 3), torch.tensor([0, 2, 5], dtype=torch.int32),
     "offsets is int32, expected int64" + SHAPES),
    (torch.ones(5, 2), torch.ones(5, 3), torch.tensor([], dtype=torch.long),
     "offsets has 0 entries, expected at least 1; scores [5,2], values [5,3], offsets [0]"),
])
def test_errors_name_the_argument_the_rule_and_all_shapes(scores, values, offsets, message):
    with pytest.raises(RuntimeError) as caught:
        fovea.attention_pool(scores, values, offsets)
    assert str(caught.value).splitlines()[0] == "attention_pool: " + message


@pytest.mark.parametrize("offsets, message", [
    ([1, 5], "offsets[0] is 1, expected 0"),
    ([0, 4, 3, 5], "offsets[2] is 3, expected at least 4 (offsets[1])"),
    ([0, 4], "offsets[1] is 4, expected 5 (the rows of values)"),
    ([0, 6], "offsets[1] is 6, expected 5 (the rows of values)"),
])
def test_offsets_that_do_not_ascend_from_0_to_the_rows_are_refused(offsets, message):
    with pytest.raises(IndexError) as caught:
        fovea.attention_pool(torch.ones(5, 2), torch.ones(5, 3), torch.tensor(offsets))
    assert str(caught.value).splitlines()[0] == "attention_pool: " + message
