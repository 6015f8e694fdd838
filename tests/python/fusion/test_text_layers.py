"""Layers that join a report and an image against their published formulas written out in torch, float64."""
import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
from peer import file_of  # noqa: E402

F = torch.nn.functional


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(fovea_layer, config, weights, inputs, outputs):
    """outputs: name -> expected tensor, computed from `weights` and `inputs`, which require gradients."""
    upstream = {name: draw(*t.shape, seed=90 + i) for i, (name, t) in enumerate(outputs.items())}
    sum((t * upstream[name]).sum() for name, t in outputs.items()).backward()
    got = fovea_layer(config, weights, {**inputs, **{"upstream." + n: u for n, u in upstream.items()}})
    for name, expected in outputs.items():
        assert (got[name] - expected).abs().max() <= 1e-12, name
    for name, leaf in {**weights, **inputs}.items():
        if leaf.grad is not None:
            assert (got["grad." + name] - leaf.grad).abs().max() <= 1e-11, name


def leaves(**shapes):
    return {name.replace("__", "."): (draw(*shape, seed=i) * shape[-1] ** -0.5).requires_grad_() for i, (name, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("gates", [1, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_gated_fusion_is_the_bimodal_unit_of_arevalo(fovea_layer, gates, bias):
    weights = leaves(image__weight=(6, 5), text__weight=(6, 4), gate__weight=(gates, 9))
    if bias:
        weights |= leaves(image__bias=(6,), text__bias=(6,), gate__bias=(gates,))
    inputs = leaves(v=(7, 5), t=(7, 4))
    v, t = inputs["v"], inputs["t"]
    z = torch.sigmoid(F.linear(torch.cat([v, t], 1), weights["gate.weight"], weights.get("gate.bias")))
    h = z * torch.tanh(F.linear(v, weights["image.weight"], weights.get("image.bias")))
    h = h + (1 - z) * torch.tanh(F.linear(t, weights["text.weight"], weights.get("text.bias")))
    compare(fovea_layer, {"layer": "gated_fusion", "image_dim": 5, "text_dim": 4, "dim": 6, "gates": gates, "bias": bias}, weights, inputs,
            {"vector": h, "gate": z})


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_gated_cross_attention_is_flamingos_block(fovea_layer, alpha):
    dim, media_dim, heads, hidden = 12, 10, 3, 20
    weights = leaves(norm__weight=(dim,), norm__bias=(dim,), attn__q_proj__weight=(dim, dim), attn__k_proj__weight=(dim, media_dim),
                     attn__v_proj__weight=(dim, media_dim), attn__out_proj__weight=(dim, dim), ff_norm__weight=(dim,), ff_norm__bias=(dim,),
                     linear1__weight=(hidden, dim), linear2__weight=(dim, hidden))
    weights |= {name: torch.full((1,), alpha, dtype=torch.float64).requires_grad_() for name in ("attn_gate", "ff_gate")}
    inputs = leaves(x=(4, 5, dim), media=(4, 7, media_dim))
    mask = torch.tensor([[1] * 7, [1, 0, 1, 0, 1, 0, 0], [0] * 6 + [1], [0] * 7], dtype=torch.bool)
    x, media = inputs["x"], inputs["media"]

    def heads_of(t):
        return t.unflatten(-1, (heads, -1)).transpose(1, 2)

    q = heads_of(F.layer_norm(x, (dim,), weights["norm.weight"], weights["norm.bias"]) @ weights["attn.q_proj.weight"].T)
    k, v = (heads_of(media @ weights[f"attn.{n}_proj.weight"].T) for n in "kv")
    scores = (q @ k.transpose(-1, -2) * (dim // heads) ** -0.5).masked_fill(~mask[:, None, None], -1e300)
    read = torch.where(mask.any(1)[:, None, None, None], scores.softmax(-1) @ v, 0.0)  # no image: nothing is read
    y = x + weights["attn_gate"].tanh() * (read.transpose(1, 2).flatten(2) @ weights["attn.out_proj.weight"].T)
    ff = F.gelu(F.layer_norm(y, (dim,), weights["ff_norm.weight"], weights["ff_norm.bias"]) @ weights["linear1.weight"].T) @ weights["linear2.weight"].T
    y = y + weights["ff_gate"].tanh() * ff
    if alpha == 0:
        assert torch.equal(y, x)
    compare(fovea_layer, {"layer": "gated_cross_attention", "dim": dim, "heads": heads, "media_dim": media_dim, "hidden": hidden}, weights,
            {**inputs, "mask": mask}, {"out": y})


def test_gated_cross_attention_equals_open_flamingo(fovea_layer):
    dim, media_dim, heads, times = 12, 10, 3, 2
    torch.manual_seed(4)
    peer = file_of("open_flamingo", "src/helpers.py").GatedCrossAttentionBlock(dim=dim, dim_visual=media_dim, dim_head=dim // heads, heads=heads, ff_mult=times).double()
    with torch.no_grad():
        for p in peer.parameters():
            p.copy_(draw(*p.shape, seed=p.numel()) / (p.shape[-1] ** 0.5 if p.dim() > 1 else 1))
    kv = [part.detach().clone().requires_grad_() for part in peer.attn.to_kv.weight.chunk(2)]
    del peer.attn.to_kv.weight
    peer.attn.to_kv.weight = torch.cat(kv)
    norm, first, _, last = peer.ff
    weights = {"norm.weight": peer.attn.norm.weight, "norm.bias": peer.attn.norm.bias, "attn.q_proj.weight": peer.attn.to_q.weight, "attn.k_proj.weight": kv[0],
               "attn.v_proj.weight": kv[1], "attn.out_proj.weight": peer.attn.to_out.weight, "ff_norm.weight": norm.weight, "ff_norm.bias": norm.bias,
               "linear1.weight": first.weight, "linear2.weight": last.weight, "attn_gate": peer.attn_gate, "ff_gate": peer.ff_gate}
    inputs = leaves(x=(4, 5, dim), media=(4, 7, media_dim))
    after = torch.zeros(4, 5, dtype=torch.bool)
    after[:, 0] = True  # the one image comes before all words
    out = peer(inputs["x"], inputs["media"].unsqueeze(1), media_locations=after)
    compare(fovea_layer, {"layer": "gated_cross_attention", "dim": dim, "heads": heads, "media_dim": media_dim, "hidden": times * dim}, weights,
            {**inputs, "mask": torch.ones(4, 7, dtype=torch.bool)}, {"out": out})


@pytest.mark.parametrize("single_softmax", [False, True])
def test_word_regions_are_glorias_attention_and_local_score(fovea_layer, single_softmax):
    lengths, width = [5, 2, 4], 8
    inputs = leaves(words=(3, 5, width), regions=(4, 6, width))
    words, regions = inputs["words"], inputs["regions"]
    word_mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    region_mask = torch.ones(4, 6, dtype=torch.bool)
    region_mask[1, 4:] = region_mask[3, :3] = False
    scores, weights = torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, 3, 5, 6, dtype=torch.float64)
    for b in range(4):
        for k, length in enumerate(lengths):  # one text and one image at a time, padding cut off
            word, region = words[k, :length], regions[b, region_mask[b]]
            similarity = word @ region.T
            if not single_softmax:
                similarity = similarity.softmax(0)
            weight = (4 * similarity).softmax(1)
            context = weight @ region
            scores[b, k] = torch.log(torch.exp(5 * F.cosine_similarity(word, context)).sum())
            row = torch.zeros(length, 6, dtype=torch.float64)
            row[:, region_mask[b]] = weight
            weights[b, k, :length] = row
    compare(fovea_layer, {"layer": "word_regions", "single_softmax": single_softmax}, {},
            {**inputs, "word_mask": word_mask, "region_mask": region_mask}, {"scores": scores, "weights": weights})
