"""Feature files: what h5py and torch write as CLAM and TRIDENT do is read as it was meant, and ours is read by h5py."""
import json
import os
import pathlib
import subprocess

import h5py
import numpy as np
import pytest
import torch

BUILD = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release"))
PROBE = BUILD / "fovea_slides_probe"


def run(*words):
    if not PROBE.exists():
        pytest.skip(f"{PROBE} is not built")
    return subprocess.run([PROBE, *map(str, words)], capture_output=True, text=True, timeout=120)


def ask(*words):
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(path):
    done = run("features", path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, (done.returncode, done.stderr)
    return done.stderr


RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(7, 5)).astype(np.float32)
COORDS = (RNG.integers(0, 40, size=(7, 2)) * 512).astype(np.int64)


def agrees(got, features=FEATURES, coords=COORDS):
    np.testing.assert_array_equal(np.array(got["features"], np.float32), features)
    if coords is None:
        assert got["coords"] is None
    else:
        np.testing.assert_array_equal(got["coords"], coords)


def test_clams_h5_grown_by_chunks_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:  # as save_hdf5 of CLAM: resizable, chunked, coords in int32
        f.create_dataset("features", FEATURES.shape, maxshape=(None, 5), chunks=(1, 5), dtype=np.float32)[:] = FEATURES
        d = f.create_dataset("coords", COORDS.shape, maxshape=(None, 2), chunks=(1, 2), dtype=np.int32)
        d[:] = COORDS
        d.attrs["patch_size"], d.attrs["patch_level"], d.attrs["downsample"] = 256, 1, (4.0, 4.0)
    got = ask("features", tmp_path / "a.h5")
    agrees(got)
    assert got["edge_level0"] == 1024


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_tridents_h5_with_a_leading_axis_attributes_and_other_precision_is_read(tmp_path, dtype):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f.create_dataset("features", data=FEATURES[None].astype(dtype), compression="gzip").attrs["encoder"] = "conch_v15"
        d = f.create_dataset("coords", data=COORDS)
        d.attrs["patch_size"], d.attrs["patch_size_level0"], d.attrs["name"] = 512, 1024, "SLIDE-OF-SOMEBODY"
    got = ask("features", tmp_path / "a.h5")
    agrees(got, FEATURES.astype(dtype).astype(np.float32))
    assert got["edge_level0"] == 1024 and got["encoder"] == "conch_v15"
    assert "SOMEBODY" not in json.dumps(got)


def test_clams_pt_of_one_tensor_and_a_dictionary_are_read(tmp_path):
    torch.save(torch.from_numpy(FEATURES), tmp_path / "a.pt")
    agrees(ask("features", tmp_path / "a.pt"), coords=None)
    torch.save({"features": torch.from_numpy(FEATURES).half(), "coords": torch.from_numpy(COORDS)}, tmp_path / "b.pt")
    agrees(ask("features", tmp_path / "b.pt"), FEATURES.astype(np.float16).astype(np.float32))


def test_ours_is_read_by_h5py(tmp_path):
    torch.save({"features": torch.from_numpy(FEATURES), "coords": torch.from_numpy(COORDS)}, tmp_path / "a.pt")
    ask("rewrite", tmp_path / "a.pt", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as f:
        np.testing.assert_array_equal(f["features"], FEATURES)
        np.testing.assert_array_equal(f["coords"], COORDS)
        assert f["coords"].dtype == np.int64 and f["features"].dtype == np.float32


def test_data_that_lies_elsewhere_is_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as f:
        f["features"], f["coords"] = FEATURES, COORDS
    with h5py.File(tmp_path / "link.h5", "w") as f:
        f["features"] = h5py.ExternalLink("secret.h5", "/features")
    assert "cannot be opened" in refusal(tmp_path / "link.h5")
    layout = h5py.VirtualLayout(FEATURES.shape, np.float32)
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "features", FEATURES.shape)
    with h5py.File(tmp_path / "virtual.h5", "w") as f:
        f.create_virtual_dataset("features", layout)
    assert "lies in other files" in refusal(tmp_path / "virtual.h5")
    (tmp_path / "raw.bin").write_bytes(FEATURES.tobytes())
    with h5py.File(tmp_path / "external.h5", "w") as f:
        f.create_dataset("features", FEATURES.shape, np.float32, external=[(str(tmp_path / "raw.bin"), 0, h5py.h5f.UNLIMITED)])
    assert "lies in other files" in refusal(tmp_path / "external.h5")


def test_what_is_not_features_is_refused_in_one_line(tmp_path):
    def write(**sets):
        with h5py.File(tmp_path / "a.h5", "w") as f:
            for name, values in sets.items():
                f[name] = values
        return refusal(tmp_path / "a.h5")

    assert "neither dataset 'features' nor 'coords'" in write(other=FEATURES)
    assert "no features" in write(coords=COORDS)
    assert "does not hold floating-point numbers" in write(features=COORDS)
    assert "expected rows and columns" in write(features=FEATURES[0])
    assert "7 rows of features and 3 coordinates" in write(features=FEATURES, coords=COORDS[:3])
    assert "has 3 columns, expected x and y" in write(features=FEATURES, coords=np.zeros((7, 3), np.int64))
    with h5py.File(tmp_path / "huge.h5", "w") as f:
        f.create_dataset("features", (1 << 30, 1024), np.float32, chunks=(1024, 1024))
    assert "more than the limit" in refusal(tmp_path / "huge.h5")


def test_flipped_bytes_end_in_numbers_or_in_one_line(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["features"], f["coords"] = FEATURES, COORDS
    whole = (tmp_path / "a.h5").read_bytes()
    for at in range(0, len(whole), 97):
        (tmp_path / "b.h5").write_bytes(whole[:at] + bytes([whole[at] ^ 0x5B]) + whole[at + 1 :])
        assert run("features", tmp_path / "b.h5").returncode in (0, 2)
