"""Attention over an alignment against the code of ESM (MSA Transformer) and OpenFold, under their weights; float64."""
import importlib
import sys
import types

import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
axial = pytest.importorskip("esm.axial_attention", reason="no fair-esm: run scripts/setup")
from esm.modules import AxialTransformerLayer  # noqa: E402
from peer import folder_of  # noqa: E402
from test_co_attention import compare, normal  # noqa: E402

DIM, HEADS, ROWS, RESIDUES, PAIR = 12, 3, 6, 9, 5


def openfold():
    """OpenFold's alignment layers. Its package also imports two readers of structures, which no layer uses."""
    readers = {"gemmi": {"__version__": "0"}, "biotite": {}, "biotite.structure": {"AtomArray": object}}
    for name, contents in readers.items():
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__dict__.update(contents)
    folder_of("openfold3")
    return importlib.import_module("openfold3.core.model.layers.msa")


def drawn(layer):
    """The layer in float64, every parameter drawn: some begin at 0."""
    with torch.no_grad():
        for p in layer.parameters():
            p.data = normal(*p.shape) / (p.shape[-1] ** 0.5 if p.dim() > 1 else 1)
    return layer.double().eval()


def whole_or_padded(padded):
    mask = torch.ones(2, ROWS, RESIDUES, dtype=torch.bool)
    if padded:  # whole sequences, whole columns
        mask[0, 4:], mask[1, :, 6:] = False, False
    return mask


def check(fovea_layer, config, named, x, mask, out):
    """named: the peer's parameters under our names. Places that take no part may hold what they like."""
    kept = mask[..., None]
    outputs, upstream = {"out": torch.where(kept, out, 0)}, {"out": torch.randn_like(out) * kept}
    inputs = {**x, "mask": mask.to(torch.uint8), "upstream.out": upstream["out"]}
    if mask.all():
        del inputs["mask"]
    got = fovea_layer({"dim": DIM, "heads": HEADS, **config}, named, inputs)
    got["out"] = torch.where(kept, got["out"], 0)
    # A bias of all keys, or of all pairs, adds the same to every score of a row: its gradient is rounding.
    compared = {k: v for k, v in {**named, **x}.items() if v.requires_grad and not k.endswith(("k_proj.bias", "pair_norm.bias"))}
    compare(got, outputs, upstream, compared, forward=1e-12, backward=1e-11)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("over", ["residues", "sequences"])
def test_attention_equals_esm(fovea_layer, over, padded):
    torch.manual_seed(1)
    peer = drawn(axial.RowSelfAttention(DIM, HEADS) if over == "residues" else axial.ColumnSelfAttention(DIM, HEADS))
    x, mask = normal(2, ROWS, RESIDUES, DIM).requires_grad_(), whole_or_padded(padded)
    out, _ = peer(x.permute(1, 2, 0, 3), self_attn_padding_mask=~mask if padded else None)
    config = dict(layer="msa_attention", head_dim=DIM // HEADS, over=over, tied=over == "residues", bias=True, gated=False, pair_dim=0)
    check(fovea_layer, config, dict(peer.named_parameters()), {"x": x}, mask, out.permute(2, 0, 1, 3))


def test_a_block_equals_esm_under_its_names(fovea_layer):
    torch.manual_seed(2)
    peer = drawn(AxialTransformerLayer(DIM, 20, HEADS))
    x = normal(2, ROWS, RESIDUES, DIM).requires_grad_()
    out = peer(x.permute(1, 2, 0, 3)).permute(2, 0, 1, 3)
    check(fovea_layer, dict(layer="msa_block", hidden=20), dict(peer.named_parameters()), {"x": x}, whole_or_padded(False), out)


def renamed(layer, names):
    """Parameters of the peer's attention under ours, with those outside of it by `names`."""
    ours = {"linear_q": "q_proj", "linear_k": "k_proj", "linear_v": "v_proj", "linear_g": "g_proj", "linear_o": "out_proj", **names}
    return {".".join([ours[name.split(".")[-2]], name.split(".")[-1]]): p for name, p in layer.named_parameters()}


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("kind", ["row-with-pair-bias", "column", "global-column"])
def test_attention_equals_openfold(fovea_layer, kind, padded):
    msa = openfold()
    torch.manual_seed(3)
    row, channels = kind == "row-with-pair-bias", 5
    make = {"row-with-pair-bias": lambda: msa.MSARowAttentionWithPairBias(DIM, PAIR, channels, HEADS),
            "column": lambda: msa.MSAColumnAttention(DIM, channels, HEADS), "global-column": lambda: msa.MSAColumnGlobalAttention(DIM, channels, HEADS, eps=1e-30)}
    peer = drawn(make[kind]())
    (peer._msa_att if kind == "column" else peer).layer_norm_m = torch.nn.Identity()  # ours lies in the block
    x, mask = {"x": normal(2, ROWS, RESIDUES, DIM).requires_grad_()}, whole_or_padded(padded)
    if row:
        x["pair"] = normal(2, RESIDUES, RESIDUES, PAIR).requires_grad_()
    out = peer(x["x"], **({"z": x["pair"]} if row else {}), mask=mask.double())
    config = dict(layer="global_column_attention") if kind == "global-column" else dict(
        layer="msa_attention", over="residues" if row else "sequences", tied=False, bias=False, gated=True, pair_dim=PAIR if row else 0)
    named = renamed(peer, {"layer_norm_z": "pair_norm", "linear_z": "pair_bias"})
    for name, size in (("g_proj.bias", HEADS * channels), ("out_proj.bias", DIM)):
        if name not in named:  # the peer has none
            named[name] = torch.zeros(size, dtype=torch.float64)
    check(fovea_layer, {"head_dim": channels, **config}, named, x, mask, out)
