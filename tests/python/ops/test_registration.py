"""PyTorch's own check of each operator (schema, autograd, fake tensors, dynamic shapes), and torch.compile."""
import pytest
import torch
from torch.library import opcheck

import fovea

ops = torch.ops.fovea
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def check(op, *args, **kwargs):
    assert set(opcheck(op.default, args, kwargs).values()) == {"SUCCESS"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype):
    def t(*shape, grad=True):
        return torch.randn(shape, dtype=dtype, requires_grad=grad)

    check(ops.attention, t(2, 4, 5, 8), t(2, 2, 7, 8), t(2, 2, 7, 6))
    check(ops.attention, t(2, 4, 5, 8), t(2, 4, 5, 8), t(2, 4, 5, 8), t(4, 1, 5), torch.rand(2, 5) > 0.3, True, 0.5)
    check(ops.attention, t(2, 4, 5, 8, grad=False), t(2, 4, 5, 8), t(2, 4, 5, 8), bias=t(2, 1, 1, 1, grad=False))
    tokens_first = [t(2, 5, 4, 8).transpose(1, 2).detach().requires_grad_() for _ in range(3)]
    check(ops.attention, *tokens_first)
    check(ops.attention, t(0, 4, 5, 8), t(0, 4, 5, 8), t(0, 4, 5, 8))
    check(ops.attention, t(1, 2, 3, 8), t(1, 2, 0, 8), t(1, 2, 0, 8))
    check(ops.attention, t(2, 4, 5, 8), t(2, 2, 7, 8), t(2, 2, 7, 6), window_left=2, window_right=0, softcap=2.0,
          alibi_slopes=[0.5, 0.25, 0.1, 0.0], dropout=0.25, dropout_seed=9)
    check(ops.attention_packed, t(6, 4, 8), t(8, 2, 8), t(8, 2, 6), [0, 2, 6], [0, 5, 8], True)


def test_attention_backward_and_rows():
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 6)
    bias, mask = torch.randn(4, 1, 7), torch.rand(2, 7) > 0.3
    out, lse = ops.attention(q, k, v, bias, mask)
    check(ops.attention_backward, torch.randn_like(out), q, k, v, out, lse, bias, mask, bias_wanted=True)
    check(ops.attention_backward, torch.randn_like(out), q, k, v, out, lse)
    check(ops.attention_rows, q, k, torch.tensor([4, 0, 2]))
    check(ops.attention_rows, q.requires_grad_(), k, torch.tensor([3]), bias, mask, 0.3, True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_window_attention(dtype):
    def t(*shape):
        return torch.randn(shape, dtype=dtype, requires_grad=True)

    check(ops.window_attention, t(2, 4, 4, 6, 3, 2, 4), t(27, 2), [2, 2, 2], [0, 0, 0])
    check(ops.window_attention, t(1, 3, 4, 5, 3, 2, 4), t(45, 2), [2, 2, 3], [1, 1, 2], 0.4, t(3, 2, 4), -100.0)
    check(ops.window_attention, t(1, 3, 4, 5, 3, 2, 4), None, [2, 2, 2], [1, 0, 1], bias=t(2, 8, 8))
    check(ops.window_attention, t(0, 3, 4, 5, 3, 2, 4), None, [2, 2, 2], [0, 0, 0])


def test_window_attention_backward_and_rows():
    qkv, table, pad = torch.randn(1, 3, 4, 5, 3, 2, 4), torch.randn(27, 2), torch.randn(3, 2, 4)
    window, shift = [2, 2, 2], [1, 1, 1]
    out, lse = ops.window_attention(qkv, table, window, shift, pad_token=pad)
    check(ops.window_attention_backward, torch.randn_like(out), qkv, out, lse, table, window, shift, pad_token=pad,
          bias_wanted=True, pad_token_wanted=True)
    check(ops.window_attention_backward, torch.randn_like(out), qkv, out, lse, table, window, shift, pad_token=pad)
    queries = torch.tensor([59, 0, 7])
    check(ops.window_attention_rows, qkv, table, window, shift, queries, pad_token=pad, mask_value=-100.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_and_mlp(dtype):
    def t(*shape, grad=True):
        return torch.randn(shape, dtype=dtype, requires_grad=grad)

    check(ops.linear, t(2, 5, 8), t(6, 8))
    check(ops.linear, t(2, 5, 8), t(6, 8), t(6), t(8), t(8), 1e-5, t(2, 5, 6))
    check(ops.linear, t(0, 8), t(6, 8), t(6))
    check(ops.mlp, t(2, 5, 8), t(20, 8), t(20), t(8, 20), t(8), t(8), t(8), 1e-5, True)
    check(ops.mlp, t(5, 8, grad=False), t(20, 8), None, t(3, 20), None)
    check(ops.linear_backward, t(5, 6, grad=False), t(5, 8, grad=False), t(6, 8, grad=False), None, None, 1e-5, [True] * 3 + [False] * 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_pool(dtype):
    def t(*shape, grad=True):
        return torch.randn(shape, dtype=dtype, requires_grad=grad)

    check(ops.attention_pool, t(7, 2), t(7, 5))
    check(ops.attention_pool, t(7, 2), t(7, 5, grad=False), torch.tensor([0, 3, 3, 7]))
    check(ops.attention_pool, t(0, 2), t(0, 5), torch.tensor([0, 0]))
    if dtype == torch.bfloat16:
        check(ops.attention_pool, t(7, 2).float().detach().requires_grad_(), t(7, 5))
    scores, values, offsets = t(7, 2, grad=False), t(7, 5, grad=False), torch.tensor([0, 3, 7])
    out, lse = ops.attention_pool(scores, values, offsets)
    check(ops.attention_pool_backward, torch.randn_like(out), scores, values, out, lse, offsets)
    check(ops.attention_pool_backward, torch.randn_like(out), scores, values, out, lse, offsets, False, True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_deformable_attention(dtype):
    def t(*shape, grad=True):
        return torch.rand(shape, dtype=dtype, requires_grad=grad)

    plane, space = torch.tensor([[3, 4], [2, 2]]), torch.tensor([[2, 3, 2]])
    check(ops.deformable_attention, t(2, 16, 2, 5), plane, t(2, 3, 2, 2, 4, 2), t(2, 3, 2, 2, 4))
    check(ops.deformable_attention, t(1, 12, 2, 5, grad=False), space, t(1, 3, 2, 1, 4, 3),
          t(1, 3, 2, 1, 4, grad=False))
    check(ops.deformable_attention, t(0, 16, 2, 5), plane, t(0, 3, 2, 2, 4, 2), t(0, 3, 2, 2, 4))
    arguments = t(2, 16, 2, 5, grad=False), plane, t(2, 3, 2, 2, 4, 2, grad=False), t(2, 3, 2, 2, 4, grad=False)
    out = ops.deformable_attention(*arguments)
    check(ops.deformable_attention_backward, torch.randn_like(out), *arguments)
    check(ops.deformable_attention_backward, torch.randn_like(out), *arguments, False, True)
    check(ops.deformable_attention_backward, torch.randn_like(out), *arguments, True, False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_channel_pool_and_spatial_gate(dtype):
    def t(*shape, grad=True):
        return torch.randn(shape, dtype=dtype, requires_grad=grad)

    check(ops.channel_pool, t(2, 5, 3, 4, 6))
    check(ops.channel_pool, t(0, 5, 3, 4, 6))
    check(ops.channel_pool, t(1, 5, 3, 4, 6).detach().contiguous(memory_format=torch.channels_last_3d))
    x = t(1, 5, 3, 4, 6, grad=False)
    check(ops.channel_pool_backward, t(1, 2, 3, 4, 6, grad=False), x, ops.channel_pool(x))
    check(ops.spatial_gate, x, t(1, 2, 3, 3, 1, grad=False), 0.5, 0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_axial_attention(dtype):
    def t(*shape, grad=True):
        return torch.randn(shape, dtype=dtype, requires_grad=grad)

    mask = torch.rand(2, 3, 4) > 0.3
    check(ops.axial_attention, t(2, 3, 4, 3, 2, 5), "residues")
    check(ops.axial_attention, t(2, 3, 4, 3, 2, 5), "sequences", t(2, 3, 3), False, mask)
    check(ops.axial_attention, t(2, 3, 4, 3, 2, 5), "residues", t(2, 1, 4, 4), True, mask, 0.3)
    check(ops.axial_attention, t(2, 3, 4, 3, 2, 5, grad=False), "sequences", t(3, 3), tied=True)
    check(ops.axial_attention, t(2, 0, 4, 3, 2, 5), "residues", t(4, 4), True)
    qkv, bias = t(2, 3, 4, 3, 2, 5, grad=False), t(4, 4, grad=False)
    for tied in (False, True):
        out, lse = ops.axial_attention_forward(qkv, "residues", bias, tied, mask, None)
        check(ops.axial_attention_forward, qkv, "residues", bias, tied, mask, None)
        check(ops.axial_attention_backward, torch.randn_like(out), qkv, out, lse, "residues", bias, tied, mask,
              bias_wanted=True)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_block_gives_the_eager_numbers_forward_and_backward(dynamic):
    def block(x, weight, table):
        qkv = torch.nn.functional.linear(x, weight).unflatten(-1, (3, 2, 4))
        out, _ = fovea.window_attention(qkv, table, (2, 2, 2), (1, 1, 1))
        tokens = out.flatten(1, 3).unflatten(-1, (2, 4)).transpose(1, 2)
        out, lse = fovea.attention(tokens, tokens, tokens, causal=True)
        return out.transpose(1, 2).flatten(2), lse

    compiled = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    weight, table = torch.randn(24, 8), torch.randn(27, 2)
    for grid in [(4, 4, 4), (3, 5, 4)]:
        x = torch.randn(2, *grid, 8)
        results = []
        for function in (block, compiled):
            inputs = [t.clone().requires_grad_() for t in (x, weight, table)]
            out, lse = function(*inputs)
            out.square().sum().backward()
            results.append([out, lse, *(t.grad for t in inputs)])
        assert all(torch.equal(a, b) for a, b in zip(*results))


def test_meta_tensors_give_shapes_without_memory():
    q = torch.empty(1, 1, 1 << 20, 64, device="meta")
    out, lse = fovea.attention(q, q, q)
    assert out.shape == q.shape and lse.shape == q.shape[:3] and out.device.type == "meta"
    qkv = torch.empty(1, 512, 512, 512, 3, 4, 16, device="meta", dtype=torch.bfloat16)
    out, lse = fovea.window_attention(qkv, None, (7, 7, 7), (3, 3, 3))
    assert out.shape == (1, 512, 512, 512, 64) and out.dtype == torch.bfloat16
    assert lse.shape == (1, 4, 512, 512, 512) and lse.dtype == torch.float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 16])
def test_conv3d(dtype, channels):
    def t(*shape, grad=True):
        return torch.randn(shape, dtype=dtype, requires_grad=grad)

    weight = t(20, channels, 3, 3, 3)
    check(ops.conv3d, t(2, channels, 4, 9, 6), weight)
    check(ops.conv3d, t(1, channels, 5, 4, 4).detach().contiguous(memory_format=torch.channels_last_3d), weight, t(20))
    check(ops.conv3d, t(0, channels, 4, 4, 4), weight)
    if dtype != torch.bfloat16:
        check(ops.conv3d_moments, t(2, channels, 4, 9, 6), weight)
        check(ops.conv3d_moments, t(1, channels, 4, 4, 4, grad=False), t(5, channels, 1, 1, 3), t(5))
    check(ops.conv3d, t(1, channels, 4, 4, 4, grad=False), t(5, channels, 1, 1, 3), t(5))
    x, grad_out = t(1, channels, 4, 5, 6, grad=False), t(1, 20, 4, 5, 6, grad=False)
    check(ops.conv3d_backward, grad_out, x, weight.detach(), [True, True, True])
    check(ops.conv3d_backward, grad_out, x, weight.detach(), [False, True, False])


def test_conv3d_under_autocast_is_float32_unless_the_machine_has_bfloat16_tiles():
    x, weight = torch.randn(1, 16, 8, 8, 8), torch.randn(16, 16, 3, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.conv3d(x, weight)
        again = ops.conv3d(x.bfloat16(), weight)
    assert out.dtype == again.dtype and out.dtype in (torch.float32, torch.bfloat16)
    torch.testing.assert_close(out.float(), torch.nn.functional.conv3d(x, weight, padding=1), rtol=2e-2, atol=0.3)
