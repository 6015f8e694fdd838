"""ABMIL, CLAM and TransMIL against their published formulas in plain torch, from state dicts with the authors' names that
go through the .pt reader; float64."""
import math
import os
import pathlib
import subprocess

import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch.nn import functional as F  # noqa: E402

PROBE = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")) / "fovea_bags_probe"


@pytest.fixture
def run_bags(tmp_path):
    """run_bags(state dict, inputs) -> outputs and gradients by name."""
    if not PROBE.exists():
        pytest.skip(f"{PROBE} is not built")

    def run(state, inputs, wrap=lambda s: s, error=False):
        files = [str(tmp_path / n) for n in ("checkpoint.pt", "input.safetensors", "output.safetensors")]
        torch.save(wrap({k: v.detach() for k, v in state.items()}), files[0])
        save_file({k: v.detach().contiguous() for k, v in inputs.items()}, files[1])
        done = subprocess.run([str(PROBE), *files], capture_output=True, text=True)
        if error:
            assert done.returncode == 1
            return done.stderr
        assert done.returncode == 0, done.stderr
        return load_file(files[2])

    return run


def draw(shapes, std=0.2):
    return {k: (std * torch.randn(*s, dtype=torch.float64)).requires_grad_() for k, s in shapes.items()}


def linear_shapes(name, inputs, outputs):
    return {name + ".weight": (outputs, inputs), name + ".bias": (outputs,)}


def linear(x, w, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def compare(got, outputs, upstream, tensors, extra=0, tolerance=1e-9):
    ((outputs["logits"] * upstream).sum() + extra).backward()
    for name, expected in outputs.items():
        assert (got[name] - expected).abs().max() <= tolerance * expected.abs().max(), name
    for name, tensor in tensors.items():
        if tensor.grad is not None:
            assert (got["grad." + name] - tensor.grad).norm() <= tolerance * tensor.grad.norm().clamp_min(1e-3), name  # a bias that softmax takes away has none


def bags_of(sizes):
    return torch.tensor([0, *sizes]).cumsum(0)


@pytest.mark.parametrize("gated", [False, True], ids=["attention", "gated"])
def test_abmil_for_digits_equals_equations_7_to_9_of_ilse_2018(run_bags, gated):
    torch.manual_seed(0)
    shapes = {"feature_extractor_part1.0.weight": (20, 1, 5, 5), "feature_extractor_part1.0.bias": (20,),
              "feature_extractor_part1.3.weight": (50, 20, 5, 5), "feature_extractor_part1.3.bias": (50,),
              **linear_shapes("feature_extractor_part2.0", 800, 500), **linear_shapes("classifier.0", 500, 1)}
    v, u, s = ("attention_V.0", "attention_U.0", "attention_weights") if gated else ("attention.0", None, "attention.2")
    shapes |= linear_shapes(v, 500, 128) | linear_shapes(s, 128, 1) | (linear_shapes(u, 500, 128) if gated else {})
    w = draw(shapes, 0.05)
    sizes = [3, 1, 5]
    x = torch.rand(sum(sizes), 1, 28, 28, dtype=torch.float64, requires_grad=True)
    logits, weights = [], []
    for bag in x.split(sizes):
        h = bag
        for i in (0, 3):
            h = F.max_pool2d(F.conv2d(h, w[f"feature_extractor_part1.{i}.weight"], w[f"feature_extractor_part1.{i}.bias"]).relu(), 2)
        h = linear(h.flatten(1), w, "feature_extractor_part2.0").relu()
        hidden = torch.tanh(linear(h, w, v))
        if gated:
            hidden = hidden * torch.sigmoid(linear(h, w, u))
        a = torch.softmax(linear(hidden, w, s)[:, 0], 0)
        logits.append(linear(a @ h, w, "classifier.0"))
        weights.append(a)
    outputs = {"logits": torch.stack(logits), "weights": torch.cat(weights).unsqueeze(1)}
    upstream = torch.randn(3, 1, dtype=torch.float64)
    got = run_bags(w, {"rows": x, "offsets": bags_of(sizes), "upstream.logits": upstream})
    compare(got, outputs, upstream, {**w, "rows": x})


def clam_shapes(place, gated, heads, classes, features=1024, width=512, hidden=256, dropout=True):
    shapes = linear_shapes("attention_net.0", features, width)
    net = f"attention_net.{place}."
    if gated:
        shapes |= linear_shapes(net + "attention_a.0", width, hidden) | linear_shapes(net + "attention_b.0", width, hidden)
        shapes |= linear_shapes(net + "attention_c", hidden, heads)
    else:
        shapes |= linear_shapes(net + "module.0", width, hidden) | linear_shapes(net + ("module.3" if dropout else "module.2"), hidden, heads)
    for c in range(classes):
        shapes |= linear_shapes(f"instance_classifiers.{c}", width, 2)
        if heads > 1:
            shapes |= linear_shapes(f"classifiers.{c}", width, 1)
    return shapes if heads > 1 else shapes | linear_shapes("classifiers", width, classes)


def instance_loss(a, h, w, label, classes, subtyping, svm, k=8):
    """a [H,n], h [n,width] of one bag."""
    def judge(rows, c, targets):
        x, y = linear(rows, w, f"instance_classifiers.{c}"), torch.tensor(targets)
        if not svm:
            return F.cross_entropy(x, y)
        margin = torch.ones_like(x)
        margin[torch.arange(len(y)), y] = 0
        return (torch.logsumexp(x + margin, 1) - x[torch.arange(len(y)), y]).mean()

    k, total = min(k, h.shape[0]), 0
    for c in range(classes):
        order = a[0 if a.shape[0] == 1 else c].argsort(descending=True)
        top, bottom = h[order[:k]], h[order.flip(0)[:k]]
        if c == label:
            total = total + judge(torch.cat([top, bottom]), c, [1] * k + [0] * k)
        elif subtyping:
            total = total + judge(top, c, [0] * k)
    return total / classes if subtyping else total


@pytest.mark.parametrize("branches, gated, classes, subtyping, svm", [(1, True, 2, False, False), (3, True, 3, True, True), (1, False, 2, False, True)],
                         ids=["SB", "MB-subtyping-svm", "SB-plain-svm"])
def test_clam_equals_its_published_form_with_instance_clustering(run_bags, branches, gated, classes, subtyping, svm):
    torch.manual_seed(1)
    w = draw(clam_shapes(3, gated, branches, classes), 0.08)
    sizes, labels = [40, 12, 5], torch.tensor([1, 0, classes - 1])
    x = torch.randn(sum(sizes), 1024, dtype=torch.float64, requires_grad=True)
    logits, weights, raw, losses = [], [], [], []
    for bag, label in zip(x.split(sizes), labels.tolist()):
        h = linear(bag, w, "attention_net.0").relu()
        if gated:
            s = linear(torch.tanh(linear(h, w, "attention_net.3.attention_a.0")) * torch.sigmoid(linear(h, w, "attention_net.3.attention_b.0")), w, "attention_net.3.attention_c")
        else:
            s = linear(torch.tanh(linear(h, w, "attention_net.3.module.0")), w, "attention_net.3.module.3")
        a = s.T.softmax(1)
        m = a @ h
        logits.append(linear(m[0], w, "classifiers") if branches == 1 else torch.cat([linear(m[c], w, f"classifiers.{c}") for c in range(classes)]))
        weights.append(a.T)
        raw.append(s)
        losses.append(instance_loss(a, h, w, label, classes, subtyping, svm))
    loss = sum(losses) / len(losses)
    outputs = {"logits": torch.stack(logits), "weights": torch.cat(weights), "scores": torch.cat(raw), "instance_loss": loss}
    upstream = torch.randn(3, classes, dtype=torch.float64)
    flags = {k: torch.ones(1) for k, on in (("subtyping", subtyping), ("smooth_svm", svm)) if on}
    got = run_bags(w, {"rows": x, "offsets": bags_of(sizes), "labels": labels, "upstream.logits": upstream, **flags})
    compare(got, outputs, upstream, {**w, "rows": x}, extra=loss)


def test_clam_checkpoints_of_earlier_versions_and_of_several_gpus_give_the_same_logits(run_bags):
    torch.manual_seed(2)
    w = draw(clam_shapes(3, True, 1, 2, features=32, width=16, hidden=8))
    inputs = {"rows": torch.randn(20, 32, dtype=torch.float64), "offsets": bags_of([20]), "upstream.logits": torch.ones(1, 2, dtype=torch.float64)}
    now = run_bags(w, inputs)["logits"]
    early = {k.replace("attention_net.3.", "attention_net.2."): v for k, v in w.items()} | {"instance_loss_fn.labels": torch.tensor([0, 1])}
    gpus = {k.replace("attention_net.", "attention_net.module."): v for k, v in early.items()}
    assert torch.equal(run_bags(early, inputs)["logits"], now)
    assert torch.equal(run_bags(gpus, inputs)["logits"], now)


def nystrom(x, w, name, heads, landmarks, iterations=6):
    """One sequence [n,width], step by step with whole matrices."""
    n, width = x.shape
    padded = torch.cat([x.new_zeros((-n) % landmarks, width), x])
    q, k, v = (t.view(-1, heads, width // heads).transpose(0, 1) for t in (padded @ w[name + "to_qkv.weight"].T).chunk(3, 1))
    group = padded.shape[0] // landmarks
    few_q, few_k = (t.view(heads, landmarks, group, -1).mean(2) for t in (q, k))
    scale = (width // heads) ** -0.5
    thin, square, wide = (torch.softmax(scale * a @ b.transpose(1, 2), 2) for a, b in ((q, few_k), (few_q, few_k), (few_q, k)))
    z = square.transpose(1, 2) / (square.sum(2).max() * square.sum(1).max())
    one = torch.eye(landmarks, dtype=x.dtype)
    for _ in range(iterations):
        p = square @ z
        z = z @ (13 * one - p @ (15 * one - p @ (7 * one - p))) / 4
    matrix = thin @ z @ wide  # [heads, n, n]
    out = matrix @ v
    kernel = w[name + "res_conv.weight"][:, 0, :, 0]
    half = kernel.shape[1] // 2
    wider = F.pad(v, (0, 0, half, half))
    out = out + sum(kernel[:, i, None, None] * wider[:, i:i + v.shape[1]] for i in range(kernel.shape[1]))
    return linear(out.transpose(0, 1).reshape(-1, width), w, name + "to_out.0")[-n:], matrix[:, -n:, -n:]


@pytest.mark.parametrize("n", [32, 45])
def test_the_formula_of_nystrom_attention_is_the_package_that_transmil_uses(n):
    package = pytest.importorskip("nystrom_attention", reason="no nystrom-attention: run scripts/setup")
    torch.manual_seed(6)
    width, heads, landmarks = 24, 4, 8
    peer = package.NystromAttention(dim=width, dim_head=width // heads, heads=heads, num_landmarks=landmarks).double().eval()
    x, w = torch.randn(n, width, dtype=torch.float64), dict(peer.state_dict())
    assert (nystrom(x, w, "", heads, landmarks)[0] - peer(x[None])[0, -n:]).abs().max() <= 1e-12


def transmil_shapes(features, width, heads, classes):
    shapes = linear_shapes("_fc1.0", features, width) | linear_shapes("_fc2", width, classes)
    shapes |= {"cls_token": (1, 1, width), "norm.weight": (width,), "norm.bias": (width,)}
    for name, edge in (("proj", 7), ("proj1", 5), ("proj2", 3)):
        shapes |= {f"pos_layer.{name}.weight": (width, 1, edge, edge), f"pos_layer.{name}.bias": (width,)}
    for layer in ("layer1", "layer2"):
        shapes |= {f"{layer}.norm.weight": (width,), f"{layer}.norm.bias": (width,), f"{layer}.attn.to_qkv.weight": (3 * width, width),
                   f"{layer}.attn.res_conv.weight": (heads, 1, 33, 1)} | linear_shapes(f"{layer}.attn.to_out.0", width, width)
    return shapes


@pytest.mark.parametrize("sizes, features, width, heads", [([37, 1, 2, 9, 150], 24, 32, 4), ([300], 1024, 512, 8)], ids=["small-bags", "published-sizes"])
def test_transmil_equals_its_published_form_and_lightning_checkpoints_load(run_bags, sizes, features, width, heads):
    torch.manual_seed(3)
    w = draw(transmil_shapes(features, width, heads, 2), 0.05)
    x = torch.randn(sum(sizes), features, dtype=torch.float64, requires_grad=True)
    norm = lambda t, name: F.layer_norm(t, (width,), w[name + ".weight"], w[name + ".bias"])  # noqa: E731
    logits, weights = [], []
    for bag in x.split(sizes):
        n, side = len(bag), math.ceil(math.sqrt(len(bag)))
        h = linear(bag, w, "_fc1.0").relu()
        h = torch.cat([w["cls_token"][0], h, h[:side * side - n]])
        h = h + nystrom(norm(h, "layer1.norm"), w, "layer1.attn.", heads, width // 2)[0]
        square = h[1:].T.reshape(1, width, side, side)
        placed = square + sum(F.conv2d(square, w[f"pos_layer.{p}.weight"], w[f"pos_layer.{p}.bias"], padding=e // 2, groups=width) for p, e in (("proj", 7), ("proj1", 5), ("proj2", 3)))
        h = torch.cat([h[:1], placed.flatten(2)[0].T])
        change, matrix = nystrom(norm(h, "layer2.norm"), w, "layer2.attn.", heads, width // 2)
        logits.append(linear(norm((h + change)[0], "norm"), w, "_fc2"))
        row = matrix[:, 0].mean(0)[1:].clamp_min(0).detach()
        folded = row[:n].clone()
        folded[:side * side - n] += row[n:]
        weights.append(folded / folded.sum())
    outputs = {"logits": torch.stack(logits), "weights": torch.cat(weights).unsqueeze(1)}
    upstream = torch.randn(len(sizes), 2, dtype=torch.float64)
    inputs = {"rows": x, "offsets": bags_of(sizes), "upstream.logits": upstream}
    got = run_bags(w, inputs, wrap=lambda s: {"state_dict": {"model." + k: v for k, v in s.items()}, "epoch": 3})
    compare(got, outputs, upstream, {**w, "rows": x}, tolerance=1e-6)  # the pseudo-inverse magnifies rounding


def test_checkpoints_of_something_else_are_refused_with_one_line(run_bags):
    one = {"rows": torch.zeros(1, 4), "offsets": bags_of([1]), "upstream.logits": torch.ones(1, 1)}
    assert "no network for bags has these names; known are AttentionDeepMIL, CLAM and TransMIL" in run_bags({"layer1.weight": torch.zeros(2, 2)}, one, error=True)
    assert "'attention_net.0.weight' has 1 axes, expected 2" in run_bags({"attention_net.0.weight": torch.zeros(2)}, one, error=True)
