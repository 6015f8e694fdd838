"""Writes FOLDER/air.csv: daily mean PM10 at 70 rural background stations in Germany, 1998 to 2009, one line a measured value.

The data set `air` of the R package spacetime (Debian r-cran-spacetime; European Environment Agency, AirBase). The
package is fetched by apt-get and unpacked, not installed: R is not needed.
"""
import csv
import datetime
import pathlib
import subprocess
import sys
import tempfile

import numpy
import rdata

PACKAGE = "r-cran-spacetime"
FILE = "usr/lib/R/site-library/spacetime/data/air.rda"


def fetch(folder):
    """The data file, from an installed package or from a fetched one."""
    installed = pathlib.Path("/") / FILE
    if installed.exists():
        return installed
    done = subprocess.run(["apt-get", "download", "-qq", PACKAGE], cwd=folder, capture_output=True, text=True)
    packages = sorted(pathlib.Path(folder).glob("*.deb"))
    if done.returncode != 0 or not packages:
        sys.exit(f"data air: apt-get download {PACKAGE} failed: {done.stderr.strip().splitlines()[-1:] or 'no package'}; "
                 f"try apt-get update, or install {PACKAGE}")
    subprocess.run(["dpkg-deb", "-x", packages[0], folder], check=True)
    return pathlib.Path(folder) / FILE


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


def main(folder):
    with tempfile.TemporaryDirectory() as scratch:
        variables = fields(rdata.parser.parse_file(fetch(scratch)).object)
    values, names, _ = matrix(variables["air"])                               # [stations, days], µg/m³, NaN: not measured
    places, place_names, _ = matrix(fields(variables["stations"].attributes)["coords"])  # longitude, latitude in degrees
    days = [datetime.date(1970, 1, 1) + datetime.timedelta(int(d)) for d in variables["dates"].value]
    place_of = dict(zip(place_names, places))
    out = pathlib.Path(folder) / "air.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["date", "station", "longitude_deg", "latitude_deg", "pm10_ug_m3"])
        for d, day in enumerate(days):
            for s, name in enumerate(names):
                if not numpy.isnan(values[s, d]):
                    lines.writerow([day, name, *(f"{x:.6f}" for x in place_of[name]), f"{values[s, d]:g}"])
    print(out)


main(sys.argv[1])
