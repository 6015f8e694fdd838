"""Deformable attention against grid_sample, values and gradients."""
import random

import pytest
import torch
from composition import deformable_attention

import fovea


def error(a, b):
    return ((a.double() - b).abs().max() / b.abs().max().clamp(min=1)).item() if b.numel() else 0.0


def run(function, value, shapes, locations, weights, grad_out):
    inputs = [t.detach().clone().requires_grad_() for t in (value, locations, weights)]
    out = function(inputs[0], shapes, *inputs[1:])
    return [out.detach(), *torch.autograd.grad(out, inputs, grad_out.to(out.dtype))]


def random_case(rng):
    axes, levels = rng.choice([2, 3]), rng.randint(1, 4)
    shapes = torch.tensor([[rng.randint(1, 12) for _ in range(axes)] for _ in range(levels)])
    batch, queries, heads, points, channels = (rng.randint(1, n) for n in (2, 40, 4, 5, 70))
    value = torch.randn(batch, int(shapes.prod(1).sum()), heads, channels)
    locations = 1.6 * torch.rand(batch, queries, heads, levels, points, axes) - 0.3
    weights = torch.rand(batch, queries, heads, levels * points).softmax(-1).unflatten(-1, (levels, points))
    return value, shapes, locations, weights, torch.randn(batch, queries, heads * channels)


def away_from_pixel_centres(shapes, locations):
    """True if no location is so near a corner of the interpolant that rounding decides on which side it lies."""
    sizes = shapes.flip(1)[:, None].double()
    coordinate = locations.double() * sizes - 0.5
    return ((coordinate - coordinate.round()).abs() > 1e-9).all()


def test_float64_equals_grid_sample_to_1e_12():
    for seed in range(30):
        torch.manual_seed(seed)
        value, shapes, locations, weights, grad_out = random_case(random.Random(seed))
        case = [value.double(), shapes, locations.double(), weights.double(), grad_out.double()]
        assert away_from_pixel_centres(shapes, locations)
        for a, b in zip(run(fovea.deformable_attention, *case), run(deformable_attention, *case)):
            assert error(a, b) < 1e-12, seed


def test_float32_error_against_float64():
    for seed in range(60):
        torch.manual_seed(seed)
        value, shapes, locations, weights, grad_out = random_case(random.Random(seed))
        wide = [t.double() if t.is_floating_point() else t for t in (value, shapes, locations, weights, grad_out)]
        exact = run(deformable_attention, *wide)
        got = run(fovea.deformable_attention, value, shapes, locations, weights, grad_out)
        assert error(got[0], exact[0]) <= 2e-6, seed
        for a, b in zip(got[1:], exact[1:]):
            assert error(a, b) <= 5e-6, seed


def test_the_sizes_of_deformable_detrs_own_test():
    # N, M, D = 1, 2, 2; Lq, L, P = 2, 2, 2; shapes (6, 4) and (3, 2): models/ops/test.py
    shapes = torch.tensor([[6, 4], [3, 2]])
    value = torch.rand(1, 30, 2, 2, dtype=torch.double) * 0.01
    locations = torch.rand(1, 2, 2, 2, 2, 2, dtype=torch.double)
    weights = torch.rand(1, 2, 2, 2, 2, dtype=torch.double) + 1e-5
    weights /= weights.sum(-1, keepdim=True).sum(-2, keepdim=True)
    expected = deformable_attention(value, shapes, locations, weights)
    assert (fovea.deformable_attention(value, shapes, locations, weights) - expected).abs().max() < 1e-12


def test_locations_on_a_pixel_grid_with_weight_one_are_plain_reading():
    value = torch.randn(1, 24, 2, 7)
    z, y, x = torch.meshgrid(torch.arange(2), torch.arange(3), torch.arange(4), indexing="ij")
    points = torch.stack([(x + 0.5) / 4, (y + 0.5) / 3, (z + 0.5) / 2], -1).view(1, 24, 1, 1, 1, 3)
    points = points.expand(1, 24, 2, 1, 1, 3)
    out = fovea.deformable_attention(value, torch.tensor([[2, 3, 4]]), points, torch.ones(1, 24, 2, 1, 1))
    torch.testing.assert_close(out.view(1, 24, 2, 7), value, rtol=0, atol=1e-6)


def test_a_volume_of_one_slice_is_the_plane():
    value = torch.randn(2, 20, 3, 8)
    points, weights = torch.rand(2, 5, 3, 1, 4, 2), torch.rand(2, 5, 3, 1, 4)
    plane = fovea.deformable_attention(value, torch.tensor([[4, 5]]), points, weights)
    middle = torch.cat([points, torch.full_like(points[..., :1], 0.5)], -1)
    assert torch.equal(fovea.deformable_attention(value, torch.tensor([[1, 4, 5]]), middle, weights), plane)


def test_strided_inputs_give_the_same_bits():
    value, shapes, locations, weights, grad_out = random_case(random.Random(3))
    expected = run(fovea.deformable_attention, value, shapes, locations, weights, grad_out)

    def turned(t):  # the same tensor with its axes the other way round in memory
        order = list(range(t.ndim))[::-1]
        return t.permute(order).contiguous().permute(order)

    inputs = [turned(t).requires_grad_() for t in (value, locations, weights)]
    out = fovea.deformable_attention(inputs[0], shapes, *inputs[1:])
    grads = torch.autograd.grad(out, inputs, turned(grad_out))
    assert all(torch.equal(a, b) for a, b in zip(expected, [out, *grads]))


def test_threads_do_not_change_a_bit(threads):
    case = random_case(random.Random(11))
    threads(1)
    one = run(fovea.deformable_attention, *case)
    threads(2)
    for _ in range(10):
        assert all(torch.equal(a, b) for a, b in zip(one, run(fovea.deformable_attention, *case)))


def test_bfloat16_is_the_float32_result_rounded_with_locations_of_either_dtype():
    value, shapes, locations, weights, _ = random_case(random.Random(4))
    value = value.bfloat16()
    wide = fovea.deformable_attention(value.float(), shapes, locations, weights)
    assert torch.equal(fovea.deformable_attention(value, shapes, locations, weights), wide.bfloat16())
    assert fovea.deformable_attention(value, shapes, locations.bfloat16(), weights).dtype == torch.bfloat16


def test_autocast_casts_value_and_leaves_locations_exact():
    value, shapes, locations, weights, grad_out = random_case(random.Random(5))
    value.requires_grad_(), locations.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = fovea.deformable_attention(value, shapes, locations, weights)
    assert torch.equal(out, fovea.deformable_attention(value.bfloat16(), shapes, locations, weights))
    out.backward(grad_out.bfloat16())
    assert value.grad.dtype == torch.float32 and locations.grad.dtype == torch.float32


VALUE, POINTS, WEIGHTS = torch.ones(1, 6, 2, 4), torch.ones(1, 3, 2, 1, 5, 2), torch.ones(1, 3, 2, 1, 5)
SHAPES = "; value [1,6,2,4], spatial_shapes [1,2], locations [1,3,2,1,5,2], weights [1,3,2,1,5]"


@pytest.mark.parametrize("arguments, message", [
    ((VALUE[0], torch.tensor([[2, 3]]), POINTS, WEIGHTS),
     "value has 3 axes, expected 4, [B,S,H,C]" + SHAPES.replace("[1,6", "[6")),
    ((VALUE, torch.tensor([[2, 3, 1]]), POINTS, WEIGHTS),
     "locations has 2 coordinates, expected 3 (the axes of spatial_shapes)" + SHAPES.replace("s [1,2]", "s [1,3]")),
    ((VALUE, torch.tensor([[6]]), POINTS[..., :1], WEIGHTS), "spatial_shapes has 1 axes a level, expected 2 or 3"
     + SHAPES.replace("s [1,2]", "s [1,1]").replace("5,2]", "5,1]")),
    ((VALUE, torch.tensor([[2, 3]]), POINTS, WEIGHTS[:, :2]),
     "weights has 2 queries, expected 3 (the queries of locations)" + SHAPES.replace("weights [1,3", "weights [1,2")),
    ((VALUE, torch.tensor([[2, 3]]), POINTS.double(), WEIGHTS),
     "locations is float64, expected float32 (value is float32)" + SHAPES),
    ((VALUE, torch.tensor([[2, 2]]), POINTS, WEIGHTS), "spatial_shapes hold 4 rows, expected 6 (the rows of value)"),
    ((VALUE, torch.tensor([[2, -3]]), POINTS, WEIGHTS), "spatial_shapes[0,1] is -3, expected at least 0"),
    ((VALUE, torch.tensor([[1 << 40, 1 << 40]]), POINTS, WEIGHTS),
     "level 0 of spatial_shapes is larger than the 6 rows of value"),
])
def test_errors_name_the_argument_and_the_rule(arguments, message):
    with pytest.raises(RuntimeError) as caught:
        fovea.deformable_attention(*arguments)
    assert str(caught.value).splitlines()[0] == "deformable_attention: " + message
