"""Windows, soft cap, ALiBi slopes, dropout and packed lengths of dense attention, against the plain composition."""
import os
import random

import pytest
import torch
from composition import attention, attention_weights, dropout_factors

import fovea
from test_attention import error, random_case, run

FULL = os.environ.get("FOVEA_FULL") == "1"


def expert_case(rng):
    inputs, options, grad_out = random_case(rng)
    if inputs[3] is not None and (inputs[3].ndim == 0 or inputs[3].shape[-1] == 1):
        inputs[3] = None  # its gradient is 0 but for rounding: see test_attention
    heads, n, m = grad_out.shape[1], grad_out.shape[2], inputs[1].shape[2]
    if rng.random() < 0.5:
        options["window_left"] = rng.randint(0, max(n, m))
    if rng.random() < 0.5:
        options["window_right"] = rng.randint(0, max(n, m))
    if rng.random() < 0.5:
        options["softcap"] = rng.choice([0.5, 2.0, 30.0])
    if rng.random() < 0.5:
        options["alibi_slopes"] = [2.0 ** -(1 + h) for h in range(heads)]
    if rng.random() < 0.5:
        options.update(dropout=rng.choice([0.1, 0.5, 0.9]), dropout_seed=rng.getrandbits(62))
    return inputs, options, grad_out


def cases(count):
    for seed in range(count):
        torch.manual_seed(seed)
        yield seed, *expert_case(random.Random(seed))


def test_float64_equals_the_composition_forward_and_backward():
    for seed, inputs, options, grad_out in cases(2000 if FULL else 200):
        inputs, grad_out = [t if t is None else t.double() for t in inputs], grad_out.double()
        exact, got = run(attention, inputs, grad_out, **options), run(fovea.attention, inputs, grad_out, **options)
        assert error(got[0], exact[0]) <= 1e-12, (seed, options)
        assert all(error(a, b) <= 1e-11 for a, b in zip(got[1:], exact[1:])), (seed, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_error_is_at_most_twice_that_of_torch_in_the_same_dtype(dtype):
    # Some roundings of the result beside the factor, where torch happens to hit the exact value.
    forward_floor, gradient_floor = {torch.float32: (1e-6, 1e-5), torch.bfloat16: (2**-8, 2**-6)}[dtype]
    for seed, inputs, options, grad_out in cases(2000 if FULL else 200):
        inputs, grad_out = [t if t is None else t.to(dtype) for t in inputs], grad_out.to(dtype)
        exact = run(attention, [t if t is None else t.double() for t in inputs], grad_out, **options)
        torchs = [error(a, b) for a, b in zip(run(attention, inputs, grad_out, **options), exact)]
        ours = [error(a, b) for a, b in zip(run(fovea.attention, inputs, grad_out, **options), exact)]
        grown = 1 / (1 - options.get("dropout", 0))  # what is kept is multiplied with this, its roundings too
        assert ours[0] <= 2 * torchs[0] + grown * forward_floor, (seed, ours[0], torchs[0], options)
        assert all(a <= 2 * b + grown * gradient_floor for a, b in zip(ours[1:], torchs[1:])), (seed, ours, torchs, options)


@pytest.mark.parametrize("options", [
    dict(window_left=2), dict(window_left=1, window_right=1), dict(softcap=0.8), dict(alibi_slopes=[0.5, 0.25]),
    dict(dropout=0.4, dropout_seed=7),
    dict(window_left=3, causal=True, softcap=1.5, alibi_slopes=[0.5, 0.25], dropout=0.2, dropout_seed=2**61),
], ids=lambda o: "+".join(o))
def test_gradcheck(options):
    def randn(*shape):
        return torch.randn(shape, dtype=torch.double, requires_grad=True)

    inputs = randn(2, 2, 5, 3), randn(2, 1, 7, 3), randn(2, 1, 7, 2), randn(2, 5, 7)
    assert torch.autograd.gradcheck(lambda q, k, v, b: fovea.attention(q, k, v, b, **options)[0], inputs, nondet_tol=0.0)


def test_rows_are_the_weights_before_dropout():
    q, k, v = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 11, 8), torch.randn(2, 2, 11, 8)
    options = dict(window_left=3, window_right=2, softcap=1.0, alibi_slopes=[0.5, 0.25, 0.1, 0.0])
    queries = torch.tensor([8, 0, 3])
    rows = fovea.attention_rows(q, k, queries, **options)
    exact = attention_weights(q.double(), k.double(), **options)[:, :, queries]
    assert (rows - exact).abs().max() <= 2e-6 and ((rows == 0) == (exact == 0)).all()
    out, _ = fovea.attention(q, k, v, **options)
    torch.testing.assert_close(rows @ v.repeat_interleave(2, 1), out[:, :, queries], atol=2e-6, rtol=0)


def test_lse_is_of_all_keys_in_the_window_dropped_or_not():
    q, k = torch.randn(1, 2, 5, 8).double(), torch.randn(1, 2, 7, 8).double()
    options = dict(window_right=0, softcap=2.0)
    _, lse = fovea.attention(q, k, k, **options)
    assert torch.equal(fovea.attention(q, k, k, dropout=0.9, **options)[1], lse)
    scores = 2 * (q @ k.transpose(-2, -1) / 8**0.5 / 2).tanh()
    hidden = ~torch.ones(5, 7, dtype=torch.bool).tril(2)
    torch.testing.assert_close(lse, scores.masked_fill(hidden, float("-inf")).logsumexp(-1), atol=1e-12, rtol=0)


def test_another_dropout_seed_drops_others_and_the_same_seed_the_same():
    q = torch.randn(1, 2, 65, 16)
    first, same, other = (fovea.attention(q, q, q, dropout=0.5, dropout_seed=s)[0] for s in (3, 3, 4))
    assert torch.equal(first, same) and not torch.equal(first, other)
    kept = (dropout_factors((1, 2, 65, 65), 0.5, 3) > 0).double().mean().item()
    assert abs(kept - 0.5) < 3 * 0.5 / (2 * 65 * 65) ** 0.5


def test_a_row_that_its_window_leaves_without_keys_gives_zero_and_no_gradient():
    q, k = torch.randn(1, 1, 6, 4, requires_grad=True), torch.randn(1, 1, 3, 4, requires_grad=True)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        q.grad = None
        # query i stands at key i - 3: the first two are more than one key before the first
        out, lse = fovea.attention(q.to(dtype), k.to(dtype), k.to(dtype), window_left=1, window_right=1, dropout=0.3)
        out.sum().backward()
        assert (out[0, 0, :2] == 0).all() and torch.isneginf(lse[0, 0, :2]).all() and (q.grad[0, 0, :2] == 0).all()
        assert torch.isfinite(lse[0, 0, 2:]).all()


@pytest.mark.parametrize("n, m", [(0, 4), (4, 0), (1, 1)])
def test_no_or_one_query_or_key(n, m):
    q, k = torch.randn(1, 2, n, 4, requires_grad=True), torch.randn(1, 2, m, 4, requires_grad=True)
    out, lse = fovea.attention(q, k, k, window_left=0, softcap=1.0, alibi_slopes=[1.0, 0.5], dropout=0.5)
    out.sum().backward()
    assert out.shape == q.shape and torch.isfinite(out).all() and torch.isfinite(k.grad).all()


def test_bits_do_not_depend_on_threads(threads):
    q, k = torch.randn(2, 4, 65, 24), torch.randn(2, 2, 130, 24)
    options = dict(window_left=50, window_right=9, softcap=3.0, alibi_slopes=[0.1] * 4, dropout=0.3)
    for dtype in (torch.float32, torch.bfloat16):
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append(run(fovea.attention, [q.to(dtype), k.to(dtype), k.to(dtype)], torch.ones_like(q), **options))
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


OFFSETS = [0, 5, 5, 17, 18], [0, 9, 12, 12, 30]  # sequences of 5, 0, 12 and 1 queries, of 9, 3, 0 and 18 keys


@pytest.mark.parametrize("options", [{}, dict(causal=True, scale=0.3), dict(window_left=4, window_right=2, softcap=2.0,
                                     alibi_slopes=[0.5, 0.25, 0.1, 0.05], dropout=0.3, dropout_seed=5)],
                         ids=["plain", "causal", "window, softcap, slopes, dropout"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_sequences_equal_one_call_a_sequence(dtype, options):
    q, k, v = torch.randn(18, 4, 8), torch.randn(30, 2, 8), torch.randn(30, 2, 6)
    grad_out = torch.randn(18, 4, 6)

    def by_hand(q, k, v):
        outs = []
        for s, (a, b, c, d) in enumerate(zip(OFFSETS[0], OFFSETS[0][1:], OFFSETS[1], OFFSETS[1][1:])):
            own = {**options, "dropout_seed": options["dropout_seed"] + s} if "dropout" in options else options
            outs.append(attention(*(t.transpose(0, 1)[None] for t in (q[a:b], k[c:d], v[c:d])), **own)[0].transpose(0, 1))
        return torch.cat(outs)

    inputs, grad_out = [t.to(dtype) for t in (q, k, v)], grad_out.to(dtype)
    exact = run(by_hand, [t.double() for t in inputs], grad_out)
    got = run(lambda *t: fovea.attention_packed(*t, *OFFSETS, **options), inputs, grad_out)
    bound = 1e-12 if dtype == torch.float64 else 5e-6
    assert all(error(a, b) <= bound for a, b in zip(got, exact))


def test_packed_gradcheck():
    inputs = [torch.randn(n, h, 3, dtype=torch.double, requires_grad=True) for n, h in ((6, 2), (8, 1), (8, 1))]
    assert torch.autograd.gradcheck(
        lambda q, k, v: fovea.attention_packed(q, k, v, [0, 2, 6], [0, 5, 8], causal=True)[0], inputs, nondet_tol=0.0)


def test_packed_without_any_sequence():
    q = torch.randn(0, 2, 4, requires_grad=True)
    out, lse = fovea.attention_packed(q, q, q, [0], [0])
    out.sum().backward()
    assert out.shape == (0, 2, 4) and lse.shape == (0, 2) and q.grad.shape == q.shape


@pytest.mark.parametrize("offsets, words", [
    (([0, 3], [0, 2]), "q_offsets is \\[0, 3\\], expected offsets that ascend from 0 to the 4 tokens"),
    (([0, 5, 4], [0, 1, 2]), "q_offsets is \\[0, 5, 4\\], expected ascending offsets"),
    (([0, 4], [0, 1, 2]), "k_offsets holds 2 sequences, expected 1 \\(those of q_offsets\\)"),
    (([], [0, 2]), "q_offsets is \\[\\], expected offsets"),
])
def test_packed_refuses_offsets_that_do_not_fit(offsets, words):
    with pytest.raises(RuntimeError, match=words):
        fovea.attention_packed(torch.randn(4, 1, 3), torch.randn(2, 1, 3), torch.randn(2, 1, 3), *offsets)


@pytest.mark.parametrize("options, words", [
    (dict(softcap=-1.0), "softcap is -1, expected at least 0"),
    (dict(softcap=float("nan")), "softcap is nan, expected at least 0"),
    (dict(dropout=1.0), "dropout is 1, expected 0 <= dropout < 1"),
    (dict(alibi_slopes=[0.5]), "alibi_slopes has 1 numbers, expected 2 \\(the heads of q\\) or none"),
])
def test_options_out_of_range_are_named(options, words):
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(RuntimeError, match=words):
        fovea.attention(q, q, q, **options)
