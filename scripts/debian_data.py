"""Data files of Debian packages, and R's own format without R."""
import pathlib
import subprocess
import sys

import numpy


def fetch(package, file, folder):
    """A file of a Debian package: of the installed one, or of one fetched into the folder and unpacked there."""
    installed = pathlib.Path("/") / file
    if installed.exists():
        return installed
    done = subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, capture_output=True, text=True)
    packages = sorted(pathlib.Path(folder).glob("*.deb"))
    if done.returncode != 0 or not packages:
        sys.exit(f"data: apt-get download {package} failed: {done.stderr.strip().splitlines()[-1:] or 'no package'}; "
                 f"try apt-get update, or install {package}")
    subprocess.run(["dpkg-deb", "-x", packages[0], folder], check=True)
    return pathlib.Path(folder) / file


def fields(pairs):
    """An R pair list (variables of a file, attributes of an object) as a dictionary of raw R objects."""
    found = {}
    while pairs is not None and pairs.info.type.name == "LIST":
        tag = pairs.tag if pairs.tag.referenced_object is None else pairs.tag.referenced_object
        found[tag.value.value.decode()] = pairs.value[0]
        pairs = pairs.value[1]
    return found


def matrix(r):
    """An R matrix with the names of its rows and columns."""
    attributes = fields(r.attributes)
    rows, columns = attributes["dimnames"].value[:2]
    names = [[s.value.decode() for s in axis.value] if axis.info.type.name == "STR" else None for axis in (rows, columns)]
    return numpy.reshape(r.value, fields(r.attributes)["dim"].value, order="F"), *names
