"""Axial attention on alignments against einsum."""
import random

import pytest
import torch
from composition import axial_attention

import fovea


def error(a, b):
    return ((a.double() - b).abs().max() / b.abs().max().clamp(min=1)).item() if b.numel() else 0.0


def run(function, qkv, axis, pair_bias, tied, mask, grad_out):
    inputs = [t.detach().clone().requires_grad_() for t in (qkv, pair_bias)]
    out = function(inputs[0], axis, inputs[1], tied, mask)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad_out.to(out.dtype))]


def random_case(rng):
    batch, heads, channels = rng.randint(1, 2), rng.randint(1, 3), rng.randint(1, 40)
    rows, residues = rng.choice([(3, 100), (40, 17), (130, 4), (7, 48), (5, 5)])
    axis, tied = rng.choice(["residues", "sequences"]), rng.random() < 0.5
    n = residues if axis == "residues" else rows
    shared = [(), (heads,), (batch, heads), (batch, 1), (1, heads)]
    bias = torch.randn(*rng.choice(shared), n, n)
    mask = torch.rand(batch, rows, residues) > 0.2 if rng.random() < 0.5 else None
    return (torch.randn(batch, rows, residues, 3, heads, channels), axis, bias, tied, mask,
            torch.randn(batch, rows, residues, heads * channels))


# R4.1: unit-normal inputs, then peaked rows (queries times 8).
@pytest.mark.parametrize("factor, forward_bound, gradient_bound", [(1, 2e-6, 5e-6), (8, 5e-5, 5e-4)])
def test_float32_error_against_float64(factor, forward_bound, gradient_bound):
    for seed in range(40):
        torch.manual_seed(seed)
        qkv, axis, bias, tied, mask, grad_out = random_case(random.Random(seed))
        qkv[:, :, :, 0] *= factor
        exact = run(axial_attention, qkv.double(), axis, bias.double(), tied, mask, grad_out.double())
        got = run(fovea.axial_attention, qkv, axis, bias, tied, mask, grad_out)
        case = (seed, qkv.shape, axis, bias.shape, tied, mask is not None)
        assert error(got[0], exact[0]) <= forward_bound, case
        for a, b in zip(got[1:], exact[1:]):
            assert error(a, b) <= gradient_bound, case


@pytest.mark.parametrize("tied", [False, True])
def test_each_axis_mixes_only_what_it_says(tied):
    qkv = torch.randn(1, 4, 5, 3, 1, 2, requires_grad=True)
    for axis, moved in [("residues", (2, slice(None))), ("sequences", (slice(None), 3))]:
        out = fovea.axial_attention(qkv, axis, tied=tied)
        (grad,) = torch.autograd.grad(out[0, 2, 3].sum(), qkv)
        values = grad[0, :, :, 2].abs().sum((-1, -2)) > 0  # values come from the attended line alone
        expected = torch.zeros(4, 5, dtype=torch.bool)
        expected[moved] = True
        assert torch.equal(values, expected)
        keys = grad[0, :, :, 1].abs().sum((-1, -2)) > 0  # tied scores come from everywhere
        assert keys.all() if tied else torch.equal(keys, expected)


def test_tied_row_attention_as_esm_writes_it():
    # esm/axial_attention.py, RowSelfAttention: einsum over [rows, columns, batch, heads, channels], padded q zeroed.
    rows, columns, heads, channels = 6, 9, 2, 8
    q, k, v = torch.randn(3, rows, columns, 1, heads, channels).unbind(0)
    padded = torch.zeros(1, rows, columns, dtype=torch.bool)
    padded[:, 4:] = True  # whole sequences
    padded[:, :, 7:] = True  # columns of all sequences
    scaled = q * (channels**-0.5 / rows**0.5) * (1 - padded.permute(1, 2, 0)[..., None, None].float())
    weights = torch.einsum("rinhd,rjnhd->hnij", scaled, k)
    weights = weights.masked_fill(padded[:, 0][None, :, None, :], -10000).softmax(-1)
    expected = torch.einsum("hnij,rjnhd->rinhd", weights, v)[:4, :7, 0]
    qkv = torch.stack([q, k, v], 3).permute(2, 0, 1, 3, 4, 5)
    out = fovea.axial_attention(qkv, "residues", tied=True, mask=~padded).unflatten(-1, (heads, channels))
    torch.testing.assert_close(out[0, :4, :7], expected)


def test_permuting_the_sequences_permutes_the_outputs():
    qkv, order = torch.randn(1, 33, 6, 3, 2, 8), torch.randperm(33)
    for axis, tied in [("residues", False), ("residues", True), ("sequences", False)]:
        out, moved = (fovea.axial_attention(x, axis, tied=tied) for x in (qkv, qkv[:, order]))
        torch.testing.assert_close(moved, out[:, order], rtol=0, atol=2e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_strided_inputs_give_the_same_bits(tied):
    qkv, bias = torch.randn(2, 7, 20, 3, 2, 8), torch.randn(2, 20, 20)
    expected = fovea.axial_attention(qkv, "residues", bias, tied)
    turned = qkv.permute(1, 4, 0, 3, 2, 5).contiguous().permute(2, 0, 4, 3, 1, 5)
    assert torch.equal(fovea.axial_attention(turned, "residues", bias.mT.contiguous().mT, tied), expected)


def test_threads_do_not_change_a_bit(threads):
    for seed in range(8):
        case = random_case(random.Random(seed))
        threads(1)
        one = run(fovea.axial_attention, *case)
        threads(2)
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(one, run(fovea.axial_attention, *case)))


@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_is_the_float32_result_rounded(tied):
    qkv, bias = torch.randn(1, 5, 9, 3, 2, 8).bfloat16(), torch.randn(2, 9, 9)
    wide = fovea.axial_attention(qkv.float(), "residues", bias, tied)
    assert torch.equal(fovea.axial_attention(qkv, "residues", bias, tied), wide.bfloat16())
    assert fovea.axial_attention(qkv, "residues", bias.bfloat16(), tied).dtype == torch.bfloat16


def test_autocast_casts_qkv_and_adds_a_float32_bias():
    qkv, bias = torch.randn(1, 5, 9, 3, 2, 8, requires_grad=True), torch.randn(2, 9, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = fovea.axial_attention(qkv, "residues", bias)
    assert torch.equal(out, fovea.axial_attention(qkv.bfloat16(), "residues", bias))
    out.sum().backward()
    assert qkv.grad.dtype == torch.float32 and bias.grad.dtype == torch.float32


QKV = torch.ones(2, 4, 5, 3, 2, 8)


@pytest.mark.parametrize("arguments, message", [
    ((QKV, "rows"), 'axis is "rows", expected "residues" or "sequences"; qkv [2,4,5,3,2,8]'),
    ((QKV[0], "residues"), "qkv has 5 axes, expected 6, [B,R,L,3,H,C]; qkv [4,5,3,2,8]"),
    ((QKV[:, :, :, :2], "residues"), "qkv has 2 parts, expected 3 (query, key, value); qkv [2,4,5,2,2,8]"),
    ((QKV, "sequences", torch.ones(5, 5)),
     "pair_bias has shape [5,5], expected [n,n], [H,n,n] or [B,H,n,n] with [B,H,n,n] = [2,2,4,4], where B and H may be "
     "1; qkv [2,4,5,3,2,8], pair_bias [5,5]"),
    ((QKV, "residues", torch.ones(1, 5)),
     "pair_bias has shape [1,5], expected [n,n], [H,n,n] or [B,H,n,n] with [B,H,n,n] = [2,2,5,5], where B and H may be "
     "1; qkv [2,4,5,3,2,8], pair_bias [1,5]"),
    ((QKV, "residues", None, True, torch.ones(2, 5, 4, dtype=torch.bool)),
     "mask has 5 sequences, expected 4 (as qkv); qkv [2,4,5,3,2,8], mask [2,5,4]"),
    ((QKV, "residues", None, True, torch.ones(2, 4, 5)),
     "mask is float32, expected bool (true = the token takes part); qkv [2,4,5,3,2,8], mask [2,4,5]"),
])
def test_errors_name_the_argument_the_rule_and_all_shapes(arguments, message):
    with pytest.raises(RuntimeError) as caught:
        fovea.axial_attention(*arguments)
    assert str(caught.value).splitlines()[0] == "axial_attention: " + message
