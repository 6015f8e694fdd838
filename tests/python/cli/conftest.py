import pathlib
import shutil
import tempfile

import pytest

pytest.importorskip("nibabel", reason="no nibabel: run scripts/setup")
from phantom import write_dataset  # noqa: E402
from program import PROGRAM, TINY, fovea  # noqa: E402

if not pathlib.Path(PROGRAM).exists():
    pytest.skip(f"{PROGRAM} is not built", allow_module_level=True)


def new_folder():
    """In memory where there is such a place: what the program writes is flushed to the disk."""
    return pathlib.Path(tempfile.mkdtemp(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None))


@pytest.fixture
def tmp_path():
    folder = new_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def workshop():
    folder = new_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def dataset(workshop):
    return write_dataset(workshop / "Dataset001_Phantom")


@pytest.fixture(scope="session")
def training(workshop, dataset):
    """The program's answer to a training on fold 0 that is long enough to find the two structures."""
    return fovea("train", "-d", dataset, "--fold", 0, "--steps", 24, *TINY, "--augment", "none", "--set", "train.steps_per_epoch=12",
                 "--set", "train.optimizer.learning_rate=4e-3", "-o", workshop / "run", "--json")


@pytest.fixture(scope="session")
def run_folder(workshop, training):
    return workshop / "run"


@pytest.fixture(scope="session")
def model(run_folder):
    return run_folder / "model"
