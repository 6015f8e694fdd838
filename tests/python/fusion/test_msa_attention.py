"""Attention over an alignment against the formulas of the MSA Transformer and AlphaFold 2, one token after the other; float64."""
import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
from test_co_attention import compare, normal  # noqa: E402


def compare_all(got, outputs, upstream, tensors):
    """A bias of all keys, or of all pairs, adds the same to every score of a row: softmax does not see it, its gradient is rounding."""
    keys = [name for name in tensors if name.endswith(("k_proj.bias", "pair_norm.bias"))]
    compare(got, outputs, upstream, {k: v for k, v in tensors.items() if k not in keys})
    for name in keys:
        assert got["grad." + name].abs().max() <= 1e-12, name


def weights_of(dim, inner, bias, gated, pair_dim, heads):
    w = {}
    for name in ("q_proj", "k_proj", "v_proj"):
        w[name + ".weight"] = normal(inner, dim) / dim**0.5
        if bias:
            w[name + ".bias"] = normal(inner)
    w |= {"out_proj.weight": normal(dim, inner) / inner**0.5, "out_proj.bias": normal(dim)}
    if gated:
        w |= {"g_proj.weight": normal(inner, dim) / dim**0.5, "g_proj.bias": normal(inner)}
    if pair_dim:
        w |= {"pair_norm.weight": normal(pair_dim), "pair_norm.bias": normal(pair_dim), "pair_bias.weight": normal(heads, pair_dim)}
    return w


def attend(w, x, heads, over, tied=False, pair=None, mask=None):
    """[R, L, E] of one alignment, by loops over what is not attended."""
    rows, residues, _ = x.shape
    mask = torch.ones(rows, residues, dtype=torch.bool) if mask is None else mask

    def project(name):
        y = x @ w[name + ".weight"].T
        return (y + w[name + ".bias"] if name + ".bias" in w else y).unflatten(-1, (heads, -1))

    q, k, v = project("q_proj"), project("k_proj"), project("v_proj")
    channels = q.shape[-1]
    if over == "sequences":  # the same, with the axes exchanged
        q, k, v, mask = (t.transpose(0, 1) for t in (q, k, v, mask))
    others, n = q.shape[:2]
    bias = torch.zeros(heads, n, n, dtype=torch.float64)
    if pair is not None:
        bias = (torch.nn.functional.layer_norm(pair, pair.shape[-1:], w["pair_norm.weight"], w["pair_norm.bias"]) @ w["pair_bias.weight"].T).permute(2, 0, 1)
    out = torch.zeros_like(q)
    for h in range(heads):
        if tied:
            kept = q[:, :, h] * mask[..., None]
            total = sum(kept[r] @ k[r, :, h].T for r in range(others)) / (channels * others) ** 0.5
        for r in range(others):
            scores = total if tied else q[r, :, h] @ k[r, :, h].T / channels**0.5
            closed = ~mask.any(0) if tied else ~mask[r]
            a = torch.softmax((scores + bias[h]).masked_fill(closed, -1e30), -1) * ~closed.all()  # no key: nothing is read
            out[r, :, h] = a @ v[r, :, h]
    if over == "sequences":
        out = out.transpose(0, 1)
    out = out.flatten(-2)
    if "g_proj.weight" in w:
        out = out * torch.sigmoid(x @ w["g_proj.weight"].T + w["g_proj.bias"])
    return out @ w["out_proj.weight"].T + w["out_proj.bias"]


CASES = {"esm-row-tied": dict(over="residues", tied=True, bias=True, gated=False, pair_dim=0), "esm-column": dict(over="sequences", tied=False, bias=True, gated=False, pair_dim=0),
         "alphafold-row-pair-bias": dict(over="residues", tied=False, bias=False, gated=True, pair_dim=5), "alphafold-column": dict(over="sequences", tied=False, bias=False, gated=True, pair_dim=0)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_attention_along_an_axis_equals_the_published_formula(fovea_layer, case, masked):
    torch.manual_seed(3)
    options, dim, heads, channels, rows, residues = CASES[case], 12, 3, 5, 6, 9
    w = weights_of(dim, heads * channels, options["bias"], options["gated"], options["pair_dim"], heads)
    x = {"x": normal(2, rows, residues, dim)}
    if options["pair_dim"]:
        x["pair"] = normal(2, residues, residues, options["pair_dim"])
    for tensor in [*w.values(), *x.values()]:
        tensor.requires_grad_()
    mask = torch.ones(2, rows, residues, dtype=torch.bool)
    if masked:  # whole sequences and whole columns, as padding is
        mask[0, 4:], mask[1, :, 6:] = False, False
    outputs = {"out": torch.stack([attend(w, x["x"][b], heads, options["over"], options["tied"], x["pair"][b] if "pair" in x else None, mask[b]) for b in range(2)])}
    upstream = {"out": torch.randn_like(outputs["out"]) * mask[..., None]}
    # Places that take no part may hold what they like: only the others are compared.
    outputs = {"out": torch.where(mask[..., None], outputs["out"], 0)}
    inputs = {**x, **({"mask": mask.to(torch.uint8)} if masked else {}), "upstream.out": upstream["out"]}
    got = fovea_layer({"layer": "msa_attention", "dim": dim, "heads": heads, "head_dim": channels, **options}, w, inputs)
    got["out"] = torch.where(mask[..., None], got["out"], 0)
    compare_all(got, outputs, upstream, {**w, **x})


def test_global_column_attention_equals_algorithm_19(fovea_layer):
    torch.manual_seed(4)
    dim, heads, channels, rows, residues = 8, 2, 3, 7, 4
    w = {"q_proj.weight": normal(heads * channels, dim), "k_proj.weight": normal(channels, dim), "v_proj.weight": normal(channels, dim),
         "g_proj.weight": normal(heads * channels, dim), "g_proj.bias": normal(heads * channels), "out_proj.weight": normal(dim, heads * channels), "out_proj.bias": normal(dim)}
    x = normal(1, rows, residues, dim)
    for tensor in [*w.values(), x]:
        tensor.requires_grad_()
    mask = torch.ones(1, rows, residues, dtype=torch.bool)
    mask[0, 5:, :] = False
    mask[0, 2, 1] = False
    columns = []
    for i in range(residues):
        kept = mask[0, :, i]
        mean = x[0, kept, i].mean(0)
        q = (mean @ w["q_proj.weight"].T).view(heads, channels) / channels**0.5
        k, v = x[0, kept, i] @ w["k_proj.weight"].T, x[0, kept, i] @ w["v_proj.weight"].T
        read = torch.softmax(q @ k.T, -1) @ v
        gate = torch.sigmoid(x[0, :, i] @ w["g_proj.weight"].T + w["g_proj.bias"]).view(rows, heads, channels)
        columns.append((gate * read).flatten(1) @ w["out_proj.weight"].T + w["out_proj.bias"])
    outputs = {"out": torch.stack(columns, 1)[None]}
    upstream = {"out": torch.randn_like(outputs["out"])}
    got = fovea_layer({"layer": "global_column_attention", "dim": dim, "heads": heads, "head_dim": channels}, w, {"x": x, "mask": mask.to(torch.uint8), "upstream.out": upstream["out"]})
    compare_all(got, outputs, upstream, {**w, "x": x})


def test_a_block_is_rows_then_columns_then_a_perceptron_under_esm_names(fovea_layer):
    torch.manual_seed(5)
    dim, heads, hidden = 8, 2, 12
    w = {}
    for part in ("row_self_attention", "column_self_attention"):
        w |= {f"{part}.layer.{k}": v for k, v in weights_of(dim, dim, True, False, 0, heads).items()}
    for part in ("row_self_attention", "column_self_attention", "feed_forward_layer"):
        w |= {f"{part}.layer_norm.weight": normal(dim), f"{part}.layer_norm.bias": normal(dim)}
    w |= {"feed_forward_layer.layer.fc1.weight": normal(hidden, dim), "feed_forward_layer.layer.fc1.bias": normal(hidden),
          "feed_forward_layer.layer.fc2.weight": normal(dim, hidden), "feed_forward_layer.layer.fc2.bias": normal(dim)}
    x = normal(1, 5, 6, dim)
    for tensor in [*w.values(), x]:
        tensor.requires_grad_()

    def norm(y, part):
        return torch.nn.functional.layer_norm(y, (dim,), w[part + ".layer_norm.weight"], w[part + ".layer_norm.bias"])

    def inside(part):
        return {k.removeprefix(part + ".layer."): v for k, v in w.items() if k.startswith(part + ".layer.")}

    y = x[0]
    y = y + attend(inside("row_self_attention"), norm(y, "row_self_attention"), heads, "residues", tied=True)
    y = y + attend(inside("column_self_attention"), norm(y, "column_self_attention"), heads, "sequences")
    feed = inside("feed_forward_layer")
    h = torch.nn.functional.gelu(norm(y, "feed_forward_layer") @ feed["fc1.weight"].T + feed["fc1.bias"])
    outputs = {"out": (y + h @ feed["fc2.weight"].T + feed["fc2.bias"])[None]}
    upstream = {"out": torch.randn_like(outputs["out"])}
    got = fovea_layer({"layer": "msa_block", "dim": dim, "heads": heads, "hidden": hidden}, w, {"x": x, "upstream.out": upstream["out"]})
    compare_all(got, outputs, upstream, {**w, "x": x})
