"""The code of the packages that layers are compared with."""
import importlib.util
import pathlib

import pytest


def loaded(path):
    """A file of Python, without the package around it: those also import plots, notebooks and other networks."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def folder_of(package):
    """Of an installed package; the test is skipped where that is not there, and only then: one that does not import fails."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"no {package}: run scripts/setup")
    return pathlib.Path(found.origin).parent


def file_of(package, path):
    return loaded(folder_of(package) / path)
