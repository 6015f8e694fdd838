"""Sentence vectors of all-MiniLM-L6-v2 against BERT's formulas written out in torch with the same files (`scripts/data minilm`)."""
import json
import math
import os
import pathlib
import subprocess

import pytest

torch = pytest.importorskip("torch", reason="no torch: run scripts/setup")
from safetensors.torch import load_file, save_file  # noqa: E402
from tokenizers import BertWordPieceTokenizer  # noqa: E402

PROBE = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")) / "fovea_sentences_probe"
DATA = pathlib.Path(os.environ.get("FOVEA_DATA") or pathlib.Path(os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local/share") / "fovea")
F = torch.nn.functional
TEXTS = [
    "An 8 mm solid nodule in the right upper lobe.",
    "A small dense spot at the top of the right lung.",
    "No pleural effusion; the liver is unremarkable.",
    "右肺上叶见8毫米实性结节。",
    "",
    "Kein Rundherd. " * 120,  # longer than the 256 pieces that are read
    "узел в лёгком",
]


def bert(folder, texts):
    """Mean-pooled, normalised vectors, one text at a time, in float64."""
    w = {k: v.double() for k, v in load_file(folder / "model.safetensors").items() if v.is_floating_point()}
    config = json.loads((folder / "config.json").read_text())
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    longest = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(longest)

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], eps)

    def linear(x, name):
        return F.linear(x, w[name + ".weight"], w[name + ".bias"])

    vectors = []
    for text in texts:
        ids = torch.tensor(tokenizer.encode(text).ids)
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = norm(x + w["embeddings.position_embeddings.weight"][: len(ids)], "embeddings.LayerNorm")
        for i in range(config["num_hidden_layers"]):
            layer = f"encoder.layer.{i}."
            q, k, v = (linear(x, f"{layer}attention.self.{n}").unflatten(-1, (heads, -1)).transpose(0, 1) for n in ("query", "key", "value"))
            read = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
            x = norm(x + linear(read.transpose(0, 1).flatten(1), layer + "attention.output.dense"), layer + "attention.output.LayerNorm")
            x = norm(x + linear(F.gelu(linear(x, layer + "intermediate.dense")), layer + "output.dense"), layer + "output.LayerNorm")
        vectors.append(F.normalize(x.mean(0), dim=0))
    return torch.stack(vectors)


def run(folder, texts, tmp_path):
    if not PROBE.exists():
        pytest.skip(f"{PROBE} is not built")
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    return subprocess.run([PROBE, folder, tmp_path / "texts.json", tmp_path / "out.safetensors"], capture_output=True, text=True)


def test_minilm_gives_the_reference_vectors(tmp_path):
    folder = DATA / "minilm"
    if not folder.exists():
        pytest.skip(f"{folder} is not there: run scripts/data minilm (83 MB)")
    done = run(folder, TEXTS, tmp_path)
    assert done.returncode == 0, done.stderr
    vectors = load_file(tmp_path / "out.safetensors")["vectors"].double()
    assert (vectors - bert(folder, TEXTS)).abs().max() <= 1e-5
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2], "what a sentence means, not its words alone"


@pytest.fixture
def small(tmp_path):
    """A folder of a small network with weights drawn here."""
    folder = tmp_path / "small"
    folder.mkdir()
    dim, hidden, layers, longest = 24, 40, 2, 64
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "an", "##n", "nodule", "in", "the", "right", "lobe", ".", "8", "mm", "右", "肺"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(words), "hidden_size": dim, "num_hidden_layers": layers,
                                                    "num_attention_heads": 3, "intermediate_size": hidden, "max_position_embeddings": longest,
                                                    "layer_norm_eps": 1e-12, "hidden_act": "gelu"}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    shapes = {"embeddings.word_embeddings.weight": (len(words), dim), "embeddings.position_embeddings.weight": (longest, dim),
              "embeddings.token_type_embeddings.weight": (2, dim), "pooler.dense.weight": (dim, dim), "pooler.dense.bias": (dim,)}
    norms = ["embeddings.LayerNorm"]
    for i in range(layers):
        layer = f"encoder.layer.{i}."
        maps = {f"attention.self.{n}": (dim, dim) for n in ("query", "key", "value")}
        maps |= {"attention.output.dense": (dim, dim), "intermediate.dense": (hidden, dim), "output.dense": (dim, hidden)}
        for name, shape in maps.items():
            shapes |= {layer + name + ".weight": shape, layer + name + ".bias": shape[:1]}
        norms += [layer + "attention.output.LayerNorm", layer + "output.LayerNorm"]
    for name in norms:
        shapes |= {name + ".weight": (dim,), name + ".bias": (dim,)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    weights["embeddings.position_ids"] = torch.arange(longest)[None]
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_small_network_of_the_same_form_gives_the_formulas_vectors(small, tmp_path):
    done = run(small, TEXTS, tmp_path)
    assert done.returncode == 0, done.stderr
    vectors = load_file(tmp_path / "out.safetensors")["vectors"].double()
    assert (vectors - bert(small, TEXTS)).abs().max() <= 1e-5


@pytest.mark.parametrize("change, message", [
    ({"hidden_act": "relu"}, 'hidden_act is "relu", expected "gelu"'),
    ({"vocab_size": 18}, "found 17 pieces, expected 18"),
    ({"num_hidden_layers": 3}, "missing: layer.2."),
    ({"num_attention_heads": 5}, "heads is 5, expected a divisor of dim (24)"),
    ({"hidden_size": "24"}, "hidden_size is no number"),
])
def test_a_folder_that_does_not_fit_is_refused_in_one_line(small, tmp_path, change, message):
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | change))
    done = run(small, ["a nodule"], tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_pieces_equal_the_last_states_of_transformers_bert(small, tmp_path):
    transformers = pytest.importorskip("transformers", reason="no transformers to compare with: run scripts/setup")
    theirs = transformers.BertModel(transformers.BertConfig(**json.loads((small / "config.json").read_text())))
    theirs.load_state_dict({k: v for k, v in load_file(small / "model.safetensors").items() if k != "embeddings.position_ids"})
    theirs = theirs.double().eval()
    tokenizer = BertWordPieceTokenizer(str(small / "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(16)
    done = run(small, TEXTS, tmp_path)
    assert done.returncode == 0, done.stderr
    ours = load_file(tmp_path / "out.safetensors")["pieces"].double()
    for text, pieces in zip(TEXTS, ours):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            states = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        scale = states.abs().max()
        assert (pieces[: len(states)] - states).abs().max() <= 1e-6 * scale
        assert (pieces[len(states):] == 0).all()
