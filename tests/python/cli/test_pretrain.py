"""Learning without labels, and what a segmentation that begins from it takes over."""
import csv
import json
import shutil

import pytest
from program import fovea, refused
from safetensors.numpy import load_file

SMALL = ["--set", "plan.patch_size=[32,32,32]", "--set", "plan.batch_size=2", "--set", "train.steps_per_epoch=6"]
NETWORK = ["--set", "plan.network=masked_autoencoder", "--set",
           'plan.network_config={"patch_size":[8,8,8],"hidden_size":48,"mlp_dim":96,"num_layers":2,"num_heads":4,"decoder_hidden_size":24,"decoder_mlp_dim":48,'
           '"decoder_num_layers":1,"decoder_num_heads":2}']


@pytest.fixture(scope="module")
def unlabelled(workshop, dataset):
    folder = workshop / "unlabelled"
    shutil.copytree(dataset / "imagesTr", folder / "imagesTr")
    return folder


@pytest.fixture(scope="module")
def pretrained(workshop, unlabelled):
    run = workshop / "pretrained"
    fovea("train", "-d", unlabelled, "--pretrain", "--fold", 0, "--steps", 12, *SMALL, *NETWORK, "-o", run)
    return run


def test_hidden_patches_of_scans_without_labels_are_rebuilt_better_and_better(pretrained):
    with open(pretrained / "validation.csv") as file:
        errors = [float(row["error"]) for row in csv.DictReader(file)]
    assert len(errors) == 2 and errors[1] < errors[0]
    config = json.loads((pretrained / "model/config.json").read_text())
    assert config["recipe"]["recipe"] == "pretrain"
    assert "labels nothing" in (pretrained / "model/model_card.md").read_text()


def test_encoder_and_decoder_are_both_in_the_model(pretrained):
    names = load_file(pretrained / "model/weights.safetensors").keys()
    assert {"blocks.0.attn.qkv.weight", "decoder_blocks.0.attn.qkv.weight", "mask_tokens", "decoder_pred.weight"} <= set(names)


def test_report_shows_a_held_out_patch_rebuilt_and_info_names_the_recipe(pretrained):
    report = (pretrained / "report.html").read_text()
    assert "Pretraining on" in report and "A held-out patch" in report and "Segmentation of" not in report
    info = json.loads(fovea("info", pretrained / "model", "--json").stdout)[0]
    assert info["recipe"] == "pretrain" and info["labels"] == []


def test_a_segmentation_begins_from_the_encoder_and_predicts(workshop, dataset, pretrained, tmp_path):
    run = workshop / "tuned"
    done = fovea("train", "-d", dataset, "--start", pretrained / "model", "--steps", 1, "--set", "train.optimizer.learning_rate=1e-30", *SMALL, "-o", run)
    assert "begins from" in done.stderr and " are random: decoder_blocks.0.attn.out_proj.bias, ..." in done.stderr
    before, after = load_file(pretrained / "model/weights.safetensors"), load_file(run / "model/weights.safetensors")
    assert after["decoder_pred.weight"].shape[0] == 3 * 8**3
    assert abs(after["blocks.1.mlp.linear1.weight"] - before["blocks.1.mlp.linear1.weight"]).max() < 1e-6
    fovea("predict", "-m", run / "model", "-i", dataset / "imagesTs", "-o", tmp_path / "labels")
    assert len(list((tmp_path / "labels").glob("*.nii.gz"))) == 1


def test_what_was_pretrained_labels_nothing_and_says_what_to_do(pretrained, dataset, tmp_path):
    line = refused("predict", "-m", pretrained / "model", "-i", dataset / "imagesTs", "-o", tmp_path / "x.nii.gz")
    assert "labels nothing" in line and "--start" in line


def test_networks_without_patches_and_scans_without_labels_are_refused_with_one_line(dataset, unlabelled, tmp_path):
    line = refused("train", "-d", dataset, "--pretrain", "--set", "plan.network=swin_unetr_12", "-o", tmp_path / "a")
    assert "rebuilds no hidden patches" in line
    line = refused("train", "-d", unlabelled, *SMALL, "-o", tmp_path / "b")
    assert "--pretrain" in line
    line = refused("train", "-d", dataset, "--pretrain", "--set", "pretrain.ratio=1", "-o", tmp_path / "c")
    assert "ratio" in line
