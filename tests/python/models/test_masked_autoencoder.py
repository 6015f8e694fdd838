"""Fovea's masked autoencoder against MONAI's in three axes and transformers' ViTMAE in two: same weights, same hidden
patches; predictions and every parameter's gradient."""
import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
pytest.importorskip("monai", reason="no monai to compare with: run scripts/setup")
from monai.networks.nets import MaskedAutoEncoderViT  # noqa: E402

from test_monai_parity import perturb, relative, run_probe  # noqa: E402

MONAI = dict(in_channels=2, img_size=(16, 24, 8), patch_size=(4, 8, 4), hidden_size=48, mlp_dim=40, num_layers=2, num_heads=4,
             decoder_hidden_size=24, decoder_mlp_dim=32, decoder_num_layers=2, decoder_num_heads=3)


def as_json(options):
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


def compare(got, expected, network, exact, name_of=lambda name: name):
    assert relative(got["output"], expected.detach()) <= (1e-11 if exact else 1e-5)
    compared = 0
    for name, parameter in network.named_parameters():
        if parameter.grad is None or not parameter.requires_grad or "norm_cross_attn" in name:
            continue
        gradient = got["grad." + name_of(name)].reshape(parameter.shape)
        assert (gradient - parameter.grad).norm() <= (1e-9 if exact else 1e-4) * parameter.grad.norm() + (1e-11 if exact else 1e-6), name
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("options", [{}, dict(proj_type="perceptron", qkv_bias=True, pos_embed_type="learnable", decoder_pos_embed_type="learnable")], ids=["default", "perceptron"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_equals_monai_in_three_axes(tmp_path, monkeypatch, options, dtype):
    options = {**MONAI, **options}
    torch.manual_seed(0)
    network = MaskedAutoEncoderViT(**options)
    perturb(network)
    network.to(dtype).eval()
    x = torch.randn(2, 2, 16, 24, 8, dtype=dtype)
    probe = torch.randn(2, 24, 256, dtype=dtype)
    kept = torch.stack([torch.randperm(24)[:5].sort().values for _ in range(2)])
    monkeypatch.setattr(torch, "multinomial", lambda *a, **k: kept)  # MONAI takes no noise: give it the patches
    expected, mask = network(x)
    assert mask.sum() == 2 * 19
    (expected * probe).sum().backward()
    config = as_json({k: v for k, v in options.items()})
    # MONAI's perceptron is number 1 of a Sequential, ours as well; its positions are parameters without gradient.
    got = run_probe(tmp_path, network, {"masked_autoencoder": config}, {"x": x, "probe": probe, "kept": kept})
    compare(got, expected, network, dtype == torch.float64)


def test_positions_of_two_axes_equal_monais(tmp_path):
    options = {**MONAI, "img_size": (16, 24), "patch_size": (4, 8)}
    network = MaskedAutoEncoderViT(**options, spatial_dims=2)
    x, kept = torch.randn(1, 2, 16, 24), torch.tensor([[1, 4, 9]])
    state = {k: (v.unsqueeze(2) if k == "patch_embedding.patch_embeddings.weight" else v) for k, v in network.state_dict().items()}
    # Ours computes its tables itself here.
    network.state_dict = lambda: {k: v for k, v in state.items() if "pos" not in k}
    got = run_probe(tmp_path, network, {"masked_autoencoder": as_json(options)}, {"x": x, "kept": kept})
    torch.multinomial, former = (lambda *a, **k: kept), torch.multinomial
    try:
        with torch.no_grad():
            assert relative(got["output"], network(x)[0]) <= 1e-5
    finally:
        torch.multinomial = former


def test_equals_he_et_als_in_two_axes_given_the_same_noise(tmp_path):
    transformers = pytest.importorskip("transformers", reason="no transformers to compare with: run scripts/setup")
    torch.manual_seed(1)
    theirs = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8, num_channels=2,
        decoder_hidden_size=24, decoder_num_hidden_layers=2, decoder_num_attention_heads=3, decoder_intermediate_size=64, norm_pix_loss=True,
        hidden_act="gelu", layer_norm_eps=1e-6, mask_ratio=0.75))
    perturb(theirs)
    theirs.double().eval()
    x, noise = torch.randn(2, 2, 32, 32, dtype=torch.float64), torch.rand(2, 16, dtype=torch.float64)
    answer = theirs(pixel_values=x, noise=noise)
    # He et al. keep the patches of least noise.
    kept = noise.argsort(dim=1)[:, :4].sort(dim=1).values
    assert torch.equal((answer.mask == 0).nonzero()[:, 1].view(2, 4), kept)

    class Renamed(torch.nn.Module):
        def state_dict(self):
            state, out = theirs.state_dict(), {}
            for name, value in state.items():
                new = name.replace("vit.layernorm.", "blocks.2.").replace("decoder.decoder_norm.", "decoder_blocks.2.").replace("vit.layers.", "blocks.")
                new = new.replace("decoder.decoder_layers.", "decoder_blocks.").replace("attention.o_proj", "attn.out_proj").replace("layernorm_before", "norm1")
                new = new.replace("layernorm_after", "norm2").replace("mlp.fc1", "mlp.linear1").replace("mlp.fc2", "mlp.linear2")
                new = new.replace("vit.embeddings.cls_token", "cls_token").replace("decoder.mask_token", "mask_tokens")
                new = new.replace("decoder.decoder_embed", "decoder_embed").replace("decoder.decoder_pred", "decoder_pred")
                if name == "vit.embeddings.position_embeddings":
                    new, value = "patch_embedding.position_embeddings", value[:, 1:]
                if name == "decoder.decoder_pos_embed":
                    # The class token's own decoder position has no place in ours: it must be 0, as He et al. set it.
                    assert value[:, 0].abs().max() == 0
                    new, value = "decoder_pos_embedding", value[:, 1:]
                if new == "cls_token":
                    value = value + state["vit.embeddings.position_embeddings"][:, :1]
                if "projection" in name:
                    new = new.replace("vit.embeddings.patch_embeddings.projection", "patch_embedding.patch_embeddings")
                    value = value.unsqueeze(2) if value.dim() == 4 else value
                if ".q_proj" in name:
                    new = new.replace("attention.q_proj", "attn.qkv")
                    value = torch.cat([state[name.replace("q_proj", other)] for other in ("q_proj", "k_proj", "v_proj")])
                if ".k_proj" not in name and ".v_proj" not in name:
                    out[new] = value
            return out

    config = dict(in_channels=2, img_size=[32, 32], patch_size=[8, 8], hidden_size=48, mlp_dim=96, num_layers=2, num_heads=4, decoder_hidden_size=24, decoder_mlp_dim=64,
                  decoder_num_layers=2, decoder_num_heads=3, norm_eps=1e-6, qkv_bias=True)
    got = run_probe(tmp_path, Renamed(), {"masked_autoencoder": config}, {"x": x, "kept": kept})
    assert relative(got["output"], answer.logits.detach()) <= 1e-11
    rows = x.reshape(2, 2, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1).reshape(2, 16, 128)
    target = (rows - rows.mean(-1, keepdim=True)) / (rows.var(-1, keepdim=True) + 1e-6) ** 0.5
    loss = (((got["output"] - target) ** 2).mean(-1) * answer.mask).sum() / answer.mask.sum()
    assert abs(loss - answer.loss) <= 1e-10
