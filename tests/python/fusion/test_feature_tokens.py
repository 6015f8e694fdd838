"""Tokens of numbers and categories against the FT-Transformer's own package (rtdl_revisiting_models), same weights."""
import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
rtdl = pytest.importorskip("rtdl_revisiting_models", reason="no rtdl_revisiting_models: run scripts/setup")


@pytest.mark.parametrize("numbers, categories", [(4, [3, 2, 7]), (5, []), (0, [4])], ids=["both", "numbers", "categories"])
def test_tokens_and_gradients_equal_rtdl(fovea_layer, numbers, categories):
    torch.manual_seed(0)
    batch, dim = 6, 10
    weights, inputs, parts, peers = {"missing": torch.randn(numbers + len(categories), dim)}, {}, [], {}
    if numbers:
        peer = rtdl.LinearEmbeddings(numbers, dim).double()
        inputs["numbers"] = torch.randn(batch, numbers, dtype=torch.float64).requires_grad_()
        peers |= {"number.weight": peer.weight, "number.bias": peer.bias}
        parts.append(peer(inputs["numbers"]))
    if categories:
        peer = rtdl.CategoricalEmbeddings(categories, dim, True).double()
        inputs["codes"] = torch.stack([torch.randint(n, (batch,)) for n in categories], 1)
        peers |= {f"embedding.{i}": e.weight for i, e in enumerate(peer.embeddings)} | {"category.bias": peer.bias}
        parts.append(peer(inputs["codes"]))
        weights["category.weight"] = torch.cat([e.weight for e in peer.embeddings])
    expected = torch.cat(parts, 1)
    upstream = torch.randn_like(expected)
    (expected * upstream).sum().backward()
    weights |= {k: v for k, v in peers.items() if not k.startswith("embedding.")}
    got = fovea_layer({"layer": "feature_tokens", "numbers": numbers, "categories": categories, "dim": dim},
                      {k: v.double() for k, v in weights.items()}, {**inputs, "upstream.tokens": upstream})
    assert (got["tokens"] - expected).abs().max() <= 1e-14
    if numbers:
        assert (got["grad.numbers"] - inputs["numbers"].grad).abs().max() <= 1e-13
    for name, parameter in peers.items():
        if not name.startswith("embedding."):
            assert (got["grad." + name] - parameter.grad).abs().max() <= 1e-13, name
    if categories:
        rows = torch.cat([v.grad for k, v in peers.items() if k.startswith("embedding.")])
        assert (got["grad.category.weight"] - rows).abs().max() <= 1e-13
