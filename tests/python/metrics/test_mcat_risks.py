"""The concordance of the risks that the authors of MCAT released (Chen et al. 2021), against the table they print.

FOVEA_MCAT names a copy of mahmoodlab/MCAT, or of its results/ICCV; nothing of it is installed or fetched. Its files are
pickles: only arrays and plain values are read from them, anything else is refused."""
import io
import os
import pathlib
import pickle

import numpy as np
import pytest
from test_survival import ask

STUDIES = ["blca", "brca", "gbmlgg", "luad", "ucec"]
PRINTED = {  # their table 1: mean over the five folds
    "SNNsm_nll_surv_a0.0_reg1e-04_5foldcv_gc32_sig": [0.541, 0.466, 0.598, 0.539, 0.493],
    "AMILsm_nll_surv_a0.0_5foldcv_gc32_sig": [0.536, 0.564, 0.787, 0.559, 0.625],
    "AMILsm_nll_surv_a0.0_5foldcv_gc32_sig_concat": [0.605, 0.551, 0.816, 0.563, 0.614],
    "MCATsm_nll_surv_a0.0_5foldcv_gc32_concat": [0.624, 0.580, 0.817, 0.620, 0.622],
}


class ArraysOnly(pickle.Unpickler):
    KNOWN = {"_reconstruct": np._core.multiarray._reconstruct, "ndarray": np.ndarray, "dtype": np.dtype, "scalar": np._core.multiarray.scalar}

    def find_class(self, module, name):
        if module.split(".")[0] != "numpy" or name not in self.KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name}: neither an array nor a plain value")
        return self.KNOWN[name]


def concordance(file):
    patients = list(ArraysOnly(io.BytesIO(file.read_bytes())).load().values())
    of = lambda key: np.array([float(p[key]) for p in patients])  # noqa: E731
    return ask(ask="harrell", time=of("survival"), event=1 - of("censorship"), risk=of("risk"))["index"]


def test_what_is_no_array_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="os.system|posix.system"):
        ArraysOnly(io.BytesIO(pickle.dumps(os.system))).load()


@pytest.mark.parametrize("network", PRINTED)
def test_released_risks_have_the_printed_concordance(network):
    if not (folder := os.environ.get("FOVEA_MCAT")):
        pytest.skip("FOVEA_MCAT names no copy of mahmoodlab/MCAT")
    found = [[concordance(file) for file in sorted(pathlib.Path(folder).glob(f"**/{network}/tcga_{study}_*/split_latest_val_?_results.pkl"))] for study in STUDIES]
    assert [len(folds) for folds in found] == [5] * len(STUDIES)
    print(network, " ".join(f"{np.mean(folds):.3f} ± {np.std(folds):.3f}" for folds in found))
    assert [f"{np.mean(folds):.3f}" for folds in found] == [f"{printed:.3f}" for printed in PRINTED[network]]
