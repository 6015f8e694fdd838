"""Windowed attention of one modality on another against XSurv's formulas in torch (queries from x, keys and values from
the other modality, window 7, every second block shifted by 3, strangers of a shift at -100, zeros beyond the grid)."""
import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")


def windows(t, window):
    """[B,Z,Y,X,C] -> [B,windows,tokens,C], Z slowest."""
    b, *grid, c = t.shape
    z, y, x = (n // w for n, w in zip(grid, window))
    t = t.reshape(b, z, window[0], y, window[1], x, window[2], c)
    return t.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, z * y * x, -1, c)


def back(t, window, grid):
    b, _, _, c = t.shape
    z, y, x = (n // w for n, w in zip(grid, window))
    t = t.reshape(b, z, y, x, *window, c).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return t.reshape(b, *grid, c)


def mca(x, source, w, heads, window, shift):
    grid, dim = list(x.shape[1:4]), x.shape[-1]
    used = [min(n, length) for n, length in zip(window, grid)]
    shift = [0 if length <= n else s for n, s, length in zip(window, shift, grid)]
    pad = [p for n, length in list(zip(used, grid))[::-1] for p in (0, -length % n)]
    x, source = (torch.nn.functional.pad(t, (0, 0, *pad)) for t in (x, source))
    padded = list(x.shape[1:4])
    region = torch.zeros(1, *padded, 1)
    for axis, (length, n, s) in enumerate(zip(padded, used, shift)):
        if s:
            number = torch.zeros(length)
            number[length - n:length - s], number[length - s:] = 1, 2
            region = region + number.reshape([-1 if a == axis + 1 else 1 for a in range(5)]) * 3**axis
    rolled = [torch.roll(t, [-s for s in shift], (1, 2, 3)) for t in (x, source)]
    own, other = (windows(t, used) for t in rolled)  # the padded positions are zeros before the linear maps
    split = lambda t: t.unflatten(-1, (heads, -1)).transpose(2, 3)  # noqa: E731  b w h n c
    q = split(own @ w["qkv.weight"][:dim].T + w["qkv.bias"][:dim])
    k = split(other @ w["qkv.weight"][dim:2 * dim].T + w["qkv.bias"][dim:2 * dim])
    v = split(other @ w["qkv.weight"][2 * dim:].T + w["qkv.bias"][2 * dim:])
    n = q.shape[3]
    at = torch.cartesian_prod(*[torch.arange(length) for length in window])
    d = at[:, None] - at[None] + torch.tensor(window) - 1
    index = (d[..., 0] * (2 * window[1] - 1) + d[..., 1]) * (2 * window[2] - 1) + d[..., 2]
    bias = w["relative_position_bias_table"][index[:n, :n].reshape(-1)].reshape(n, n, heads).permute(2, 0, 1)
    scores = q @ k.transpose(-1, -2) * (dim // heads) ** -0.5 + bias
    inside = windows(region, used)[0, :, :, 0]
    scores = scores - 100.0 * (inside[:, :, None] != inside[:, None]).unsqueeze(1)
    out = (scores.softmax(-1) @ v).transpose(2, 3).flatten(3) @ w["proj.weight"].T + w["proj.bias"]
    out = torch.roll(back(out, used, padded), shift, (1, 2, 3))
    return out[:, :grid[0], :grid[1], :grid[2]]


@pytest.mark.parametrize("grid, window, shift", [((7, 7, 14), (7, 7, 7), (0, 0, 0)), ((9, 8, 14), (7, 7, 7), (3, 3, 3)), ((4, 9, 5), (7, 7, 7), (3, 3, 3)), ((6, 5, 4), (3, 2, 4), (1, 1, 2))],
                         ids=["whole", "shifted-and-padded", "clipped", "other-window"])
def test_one_modality_asking_the_other_equals_xsurv(fovea_layer, grid, window, shift):
    torch.manual_seed(0)
    dim, heads = 8, 2
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64).requires_grad_()  # noqa: E731
    entries = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
    w = {"qkv.weight": normal(3 * dim, dim), "qkv.bias": normal(3 * dim), "proj.weight": normal(dim, dim),
         "proj.bias": normal(dim), "relative_position_bias_table": normal(entries, heads)}
    x, source = normal(2, *grid, dim), normal(2, *grid, dim)
    expected = mca(x, source, w, heads, window, shift)
    upstream = torch.randn_like(expected)
    (expected * upstream).sum().backward()
    got = fovea_layer({"layer": "window_cross_attention", "dim": dim, "heads": heads, "window": window, "shift": shift}, w,
                      {"x": x, "source": source, "upstream.out": upstream})
    assert (got["out"] - expected).abs().max() <= 1e-12 * expected.abs().max()
    for name, tensor in {**w, "x": x, "source": source}.items():
        assert (got["grad." + name] - tensor.grad).norm() <= 1e-11 * tensor.grad.norm(), name
