"""Co-attention against its formulas in torch, and the two-way form against torch's own attention; float64."""
import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def compare(got, outputs, upstream, tensors, forward=1e-13, backward=1e-12):
    """outputs and gradients of sum(output * upstream) with respect to `tensors`, all by name."""
    sum((outputs[name] * up).sum() for name, up in upstream.items()).backward()
    for name, expected in outputs.items():
        assert (got[name] - expected).abs().max() <= forward * expected.abs().max(), name
    for name, tensor in tensors.items():
        assert (got["grad." + name] - tensor.grad).norm() <= backward * tensor.grad.norm().clamp_min(1e-3), name


@pytest.mark.parametrize("masked", [False, True], ids=["all-tokens", "masked"])
def test_parallel_form_equals_equations_3_to_5_of_lu_2016(fovea_layer, masked):
    torch.manual_seed(0)
    batch, n, t, dim, hidden = 3, 11, 5, 8, 6
    w = {"affinity.weight": normal(dim, dim) / 3, "image.weight": normal(hidden, dim), "table.weight": normal(hidden, dim),
         "image_score.weight": normal(1, hidden), "table_score.weight": normal(1, hidden)}
    x = {"image": normal(batch, n, dim), "table": normal(batch, t, dim)}
    for tensor in [*w.values(), *x.values()]:
        tensor.requires_grad_()
    keep = {"image_mask": torch.ones(batch, n, dtype=torch.bool), "table_mask": torch.ones(batch, t, dtype=torch.bool)}
    if masked:
        keep["image_mask"][0, 4:] = False
        keep["table_mask"][1, ::2] = False

    # One sample after the other, only the tokens that take part.
    outputs = {"image_vector": [], "table_vector": []}
    for b in range(batch):
        v, q = x["image"][b][keep["image_mask"][b]], x["table"][b][keep["table_mask"][b]]  # n e, t e
        c = torch.tanh(q @ w["affinity.weight"] @ v.T)
        hv = torch.tanh(v @ w["image.weight"].T + c.T @ (q @ w["table.weight"].T))
        hq = torch.tanh(q @ w["table.weight"].T + c @ (v @ w["image.weight"].T))
        outputs["image_vector"].append(torch.softmax(hv @ w["image_score.weight"][0], 0) @ v)
        outputs["table_vector"].append(torch.softmax(hq @ w["table_score.weight"][0], 0) @ q)
    outputs = {k: torch.stack(v) for k, v in outputs.items()}
    upstream = {k: torch.randn_like(v) for k, v in outputs.items()}
    masks = {k: v.to(torch.uint8) for k, v in keep.items()} if masked else {}
    got = fovea_layer({"layer": "parallel_co_attention", "dim": dim, "hidden": hidden}, w,
                      {**x, **masks, **{"upstream." + k: v for k, v in upstream.items()}})
    compare(got, outputs, upstream, {**w, **x})


def test_two_way_form_equals_torch_attention_and_norms(fovea_layer):
    torch.manual_seed(1)
    heads, sides = 2, {"first": (8, 6, 16), "second": (6, 8, 12)}  # width, the other's, hidden
    x = {"a": normal(2, 7, 8).requires_grad_(), "b": normal(2, 5, 6).requires_grad_()}
    keep = {"a_mask": torch.ones(2, 7, dtype=torch.bool), "b_mask": torch.ones(2, 5, dtype=torch.bool)}
    keep["a_mask"][1, 3:] = False
    keep["b_mask"][0, 1] = False
    weights, outputs = {}, {}
    for side, (dim, other, hidden) in sides.items():
        attention = torch.nn.MultiheadAttention(dim, heads, kdim=other, vdim=other, batch_first=True).double()
        norm1, norm2 = torch.nn.LayerNorm(dim).double(), torch.nn.LayerNorm(dim).double()
        one, two = torch.nn.Linear(dim, hidden).double(), torch.nn.Linear(hidden, dim).double()
        with torch.no_grad():
            for p in [attention.in_proj_bias, attention.out_proj.bias, *norm1.parameters(), *norm2.parameters()]:
                p.copy_(normal(*p.shape))
        mine, theirs, mask = (x["a"], x["b"], keep["b_mask"]) if side == "first" else (x["b"], x["a"], keep["a_mask"])
        y = norm1(mine + attention(mine, theirs, theirs, key_padding_mask=~mask)[0])
        outputs[side] = norm2(y + two(torch.nn.functional.gelu(one(y))))
        bias = attention.in_proj_bias.detach().chunk(3)
        named = {"attn.q_proj.weight": attention.q_proj_weight, "attn.k_proj.weight": attention.k_proj_weight,
                 "attn.v_proj.weight": attention.v_proj_weight, "attn.q_proj.bias": bias[0], "attn.k_proj.bias": bias[1],
                 "attn.v_proj.bias": bias[2], "attn.out_proj.weight": attention.out_proj.weight,
                 "attn.out_proj.bias": attention.out_proj.bias, "norm1.weight": norm1.weight, "norm1.bias": norm1.bias,
                 "norm2.weight": norm2.weight, "norm2.bias": norm2.bias, "mlp.linear1.weight": one.weight,
                 "mlp.linear1.bias": one.bias, "mlp.linear2.weight": two.weight, "mlp.linear2.bias": two.bias}
        weights |= {f"{side}.{k}": v for k, v in named.items()}
    upstream = {k: torch.randn_like(v) for k, v in outputs.items()}
    got = fovea_layer({"layer": "co_attention", "dim": 8, "other_dim": 6, "heads": heads, "hidden": 16}, weights,
                      {**x, **{k: v.to(torch.uint8) for k, v in keep.items()}, **{"upstream." + k: v for k, v in upstream.items()}})
    compare(got, outputs, upstream, {**x, **{k: v for k, v in weights.items() if isinstance(v, torch.nn.Parameter)}})


def draw_mcat(sizes, features):
    """Weights under the names of the authors' checkpoints, and the parts of torch that use them."""
    width = 256
    linear = lambda i, o: torch.nn.Linear(i, o).double()  # noqa: E731
    parts = {"wsi_net.0": linear(features, width), "coattn": torch.nn.MultiheadAttention(width, 1).double(),
             "mm.0": linear(2 * width, width), "mm.2": linear(width, width), "classifier": linear(width, 4)}
    for i, size in enumerate(sizes):
        parts[f"sig_networks.{i}.0.0"], parts[f"sig_networks.{i}.1.0"] = linear(size, width), linear(width, width)
    for side in ("path", "omic"):
        layer = torch.nn.TransformerEncoderLayer(width, 8, dim_feedforward=512, dropout=0.25).double()
        parts[f"{side}_transformer"] = torch.nn.TransformerEncoder(layer, 2).double().eval()
        for name in ("attention_a.0", "attention_b.0"):
            parts[f"{side}_attention_head.{name}"] = linear(width, width)
        parts[f"{side}_attention_head.attention_c"], parts[f"{side}_rho.0"] = linear(width, 1), linear(width, width)
    for part in parts.values():
        for p in part.parameters():
            if p.dim() == 1:  # also what begins at 0 or 1
                torch.nn.init.normal_(p, std=0.3)
    return parts, {f"{name}.{k}": v for name, part in parts.items() for k, v in part.named_parameters()}


@pytest.mark.parametrize("sizes, features, patches", [([100, 200, 300, 400, 500, 600], 1024, 37), ([3, 5], 16, 1)], ids=["published-sizes", "small"])
def test_mcat_equals_its_parts_in_torch(fovea_layer, sizes, features, patches):
    torch.manual_seed(2)
    parts, weights = draw_mcat(sizes, features)
    x = {"patches": normal(2, patches, features).requires_grad_()}
    x |= {f"omic{i}": normal(2, size).requires_grad_() for i, size in enumerate(sizes)}
    outputs = {name: [] for name in ("logits", "survival", "risk", "co_attention", "co_attention_scores", "path_weights", "omic_weights")}
    for b in range(2):  # one patient after the other, sequence first
        slide = torch.relu(parts["wsi_net.0"](x["patches"][b])).unsqueeze(1)
        elu = torch.nn.functional.elu
        genes = torch.stack([elu(parts[f"sig_networks.{i}.1.0"](elu(parts[f"sig_networks.{i}.0.0"](x[f"omic{i}"][b])))) for i in range(len(sizes))]).unsqueeze(1)
        asked, weight = parts["coattn"](genes, slide, slide)
        wq, wk, _ = parts["coattn"].in_proj_weight.chunk(3)
        bq, bk, _ = parts["coattn"].in_proj_bias.chunk(3)
        raw = (genes[:, 0] @ wq.T + bq) @ (slide[:, 0] @ wk.T + bk).T / 16
        pooled = []
        for side, tokens in (("path", asked), ("omic", genes)):
            h = parts[f"{side}_transformer"](tokens)[:, 0]
            gate = torch.tanh(parts[f"{side}_attention_head.attention_a.0"](h)) * torch.sigmoid(parts[f"{side}_attention_head.attention_b.0"](h))
            a = torch.softmax(parts[f"{side}_attention_head.attention_c"](gate)[:, 0], 0)
            pooled.append(torch.relu(parts[f"{side}_rho.0"](a @ h)))
            outputs[f"{side}_weights"].append(a)
        logits = parts["classifier"](torch.relu(parts["mm.2"](torch.relu(parts["mm.0"](torch.cat(pooled))))))
        survival = torch.cumprod(1 - torch.sigmoid(logits), 0)
        for name, value in (("logits", logits), ("survival", survival), ("risk", -survival.sum()), ("co_attention", weight[0]), ("co_attention_scores", raw)):
            outputs[name].append(value)
    outputs = {k: torch.stack(v) for k, v in outputs.items()}
    upstream = {"logits": normal(2, 4), "risk": normal(2)}
    got = fovea_layer({"layer": "mcat", "omic_sizes": sizes, "patch_features": features}, weights,
                      {**x, **{"upstream." + k: v for k, v in upstream.items()}})
    compare(got, outputs, upstream, {**x, **weights}, forward=1e-12, backward=1e-10)
