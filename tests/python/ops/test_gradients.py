"""gradcheck in float64, PyTorch's default tolerances and nondet_tol 0, on every differentiable input."""
import pytest
import torch

import fovea


def randn(*shape):
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


def gradcheck(function, inputs):
    assert torch.autograd.gradcheck(function, inputs, nondet_tol=0.0)


ATTENTION = {
    "self": dict(q=(2, 2, 5, 3), k=(2, 2, 5, 3), v=(2, 2, 5, 3)),
    "cross, grouped heads, other value width": dict(q=(1, 4, 3, 5), k=(1, 2, 7, 5), v=(1, 2, 7, 2)),
    "one token": dict(q=(1, 1, 1, 1), k=(1, 1, 1, 1), v=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shapes", ATTENTION.values(), ids=ATTENTION.keys())
def test_attention_gradient_of_q_k_v(shapes, causal):
    inputs = tuple(randn(*s) for s in shapes.values())
    gradcheck(lambda q, k, v: fovea.attention(q, k, v, causal=causal, scale=0.7)[0], inputs)


@pytest.mark.parametrize("bias_shape", [(2, 4, 5, 7), (1, 4, 5, 7), (4, 1, 7), (5, 7), (2, 1, 5, 1), (1,), ()])
def test_attention_gradient_of_bias_is_summed_over_the_axes_it_was_broadcast_along(bias_shape):
    inputs = randn(2, 4, 5, 3), randn(2, 2, 7, 3), randn(2, 2, 7, 3), randn(*bias_shape)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 2:5] = False
    gradcheck(lambda q, k, v, bias: fovea.attention(q, k, v, bias, mask)[0], inputs)


def test_attention_gradient_with_a_fully_masked_sample_and_causal_rows_without_keys():
    mask = torch.tensor([[False] * 3, [True, False, True]])
    q, k, v = randn(2, 2, 5, 3), randn(2, 2, 3, 3), randn(2, 2, 3, 3)
    gradcheck(lambda q, k, v: fovea.attention(q, k, v, key_mask=mask, causal=True)[0], (q, k, v))
    out, lse = fovea.attention(q, k, v, key_mask=mask, causal=True)
    out.sum().backward()
    assert (out[0] == 0).all() and torch.isneginf(lse[0]).all() and (q.grad[0] == 0).all() and (v.grad[0] == 0).all()
    assert (out[1, :, :2] == 0).all() and torch.isneginf(lse[1, :, :2]).all() and (q.grad[1, :, :2] == 0).all()


WINDOW = {
    "whole windows": dict(grid=(4, 2, 2), window=(2, 2, 2), shift=(0, 0, 0)),
    "shifted": dict(grid=(4, 3, 2), window=(2, 2, 2), shift=(1, 1, 0)),
    "padded": dict(grid=(3, 2, 5), window=(2, 2, 3), shift=(0, 0, 0)),
    "padded and shifted": dict(grid=(3, 5, 2), window=(2, 3, 2), shift=(1, 2, 1)),
    "window larger than the grid": dict(grid=(1, 2, 3), window=(2, 3, 4), shift=(0, 1, 2)),
}


@pytest.mark.parametrize("mask_value", [None, -2.0])
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("case", WINDOW.values(), ids=WINDOW.keys())
def test_window_attention_gradient_of_qkv_table_and_pad_token(case, pad, mask_value):
    window = case["window"]
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
    inputs = [randn(1, *case["grid"], 3, 2, 2), randn(rows, 2)] + ([randn(3, 2, 2)] if pad else [])
    gradcheck(lambda qkv, table, pad_token=None: fovea.window_attention(
        qkv, table, window, case["shift"], pad_token=pad_token, mask_value=mask_value)[0], inputs)


def test_window_attention_gradient_of_a_bias_by_pairs():
    inputs = randn(2, 3, 2, 4, 3, 2, 2), randn(3, 2, 2), randn(2, 8, 8)
    gradcheck(lambda qkv, pad_token, bias: fovea.window_attention(
        qkv, None, (2, 2, 2), (1, 0, 1), scale=0.9, pad_token=pad_token, mask_value=-3.0, bias=bias)[0], inputs)


@pytest.mark.parametrize("offsets", [None, [0, 1, 4, 4, 9]], ids=["one bag", "bags of 1, 3, 0 and 5"])
def test_attention_pool_gradient_of_scores_and_values(offsets):
    offsets = None if offsets is None else torch.tensor(offsets)
    gradcheck(lambda scores, values: fovea.attention_pool(scores, values, offsets)[0], (randn(9, 2), randn(9, 3)))


# The channel widths that Deformable DETR checks its own gradient with.
@pytest.mark.parametrize("channels", [30, 32, 64, 71])
@pytest.mark.parametrize("shapes", [[[6, 4], [3, 2]], [[3, 2, 4], [2, 1, 2]]], ids=["2-D", "3-D"])
def test_deformable_attention_gradient_of_value_locations_and_weights(shapes, channels):
    shapes = torch.tensor(shapes)
    value = (0.01 * torch.randn(1, int(shapes.prod(1).sum()), 2, channels, dtype=torch.double)).requires_grad_()
    locations = torch.rand(1, 2, 2, 2, 2, shapes.shape[1], dtype=torch.double, requires_grad=True)
    weights = torch.rand(1, 2, 2, 2, 2, dtype=torch.double).add(1e-5)
    weights = (weights / weights.sum((-1, -2), keepdim=True)).requires_grad_()
    gradcheck(lambda v, l, w: fovea.deformable_attention(v, shapes, l, w), (value, locations, weights))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("axis", ["residues", "sequences"])
def test_axial_attention_gradient_of_qkv_and_pair_bias(axis, tied, masked):
    n = 3 if axis == "residues" else 2
    mask = torch.tensor([[[1, 0, 1], [1, 1, 0]], [[0, 0, 0], [0, 0, 0]]]).bool() if masked else None
    for bias_shape in [(2, 2, n, n), (2, 1, n, n), (2, n, n), (n, n)]:
        gradcheck(lambda qkv, bias: fovea.axial_attention(qkv, axis, bias, tied, mask, 0.6),
                  (randn(2, 2, 3, 3, 2, 1), randn(*bias_shape)))


def test_only_wanted_gradients_are_computed():
    qkv, table, pad = randn(1, 3, 3, 3, 3, 2, 2), randn(27, 2).detach(), randn(3, 2, 2).detach()
    out, _ = fovea.window_attention(qkv, table, (2, 2, 2), (1, 1, 1), pad_token=pad)
    out.sum().backward()
    assert qkv.grad is not None and table.grad is None and pad.grad is None
    frozen = qkv.detach()
    table.requires_grad_()
    fovea.window_attention(frozen, table, (2, 2, 2), (1, 1, 1), pad_token=pad)[0].sum().backward()
    assert frozen.grad is None and table.grad.abs().sum() > 0


def test_lse_and_rows_are_constants_to_autograd():
    q, qkv = randn(1, 1, 2, 3), randn(1, 2, 2, 2, 3, 1, 2)
    queries = torch.tensor([1])
    assert not fovea.attention(q, q, q)[1].requires_grad
    assert not fovea.window_attention(qkv, None, (2, 2, 2), (0, 0, 0))[1].requires_grad
    assert not fovea.attention_rows(q, q, queries).requires_grad
    assert not fovea.attention_pool(randn(3, 1), randn(3, 2))[1].requires_grad
    assert not fovea.window_attention_rows(qkv, None, (2, 2, 2), (0, 0, 0), queries)[0].requires_grad


def test_second_derivatives_are_refused_by_name():
    q = randn(1, 1, 2, 3)
    (grad,) = torch.autograd.grad(fovea.attention(q, q, q)[0].square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for fovea::attention_backward is not implemented"):
        grad.sum().backward()
    scores = randn(3, 1)
    out, _ = fovea.attention_pool(scores, randn(3, 2))
    (grad,) = torch.autograd.grad(out.square().sum(), scores, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for fovea::attention_pool_backward is not implemented"):
        grad.sum().backward()
    value, points = randn(1, 4, 1, 2), torch.rand(1, 1, 1, 1, 1, 2, dtype=torch.double)
    out = fovea.deformable_attention(value, torch.tensor([[2, 2]]), points, torch.ones(1, 1, 1, 1, 1).double())
    (grad,) = torch.autograd.grad(out.square().sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for fovea::deformable_attention_backward is not implemented"):
        grad.sum().backward()
    qkv = randn(1, 2, 2, 3, 1, 2)
    (grad,) = torch.autograd.grad(fovea.axial_attention(qkv, "residues").square().sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for fovea::axial_attention_backward is not implemented"):
        grad.sum().backward()
    qkv = randn(1, 2, 2, 2, 3, 1, 2)
    out, _ = fovea.window_attention(qkv, None, (2, 2, 2), (0, 0, 0))
    (grad,) = torch.autograd.grad(out.square().sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for fovea::window_attention_backward is not implemented"):
        grad.sum().backward()


@pytest.mark.parametrize("shape, kernel", [((2, 3, 3, 4, 2), (3, 3, 3)), ((1, 2, 1, 5, 3), (3, 3, 3)), ((1, 2, 3, 2, 4), (1, 3, 5))])
@pytest.mark.parametrize("bias", [False, True])
def test_conv3d_gradient_of_x_weight_and_bias(shape, kernel, bias):
    inputs = randn(*shape), randn(4, shape[1], *kernel)
    gradcheck(torch.ops.fovea.conv3d, (*inputs, randn(4)) if bias else inputs)


def test_norm_with_the_convolutions_moments_has_the_gradient_of_both():
    def normed(x, weight, residual):
        y, moments = torch.ops.fovea.conv3d_moments(x, weight)
        return torch.ops.fovea.instance_norm_act(y, slope=0.1, residual=residual, moments=moments)

    gradcheck(normed, (randn(2, 3, 3, 4, 2), randn(4, 3, 3, 3, 3), randn(2, 4, 3, 4, 2)))
