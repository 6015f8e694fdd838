"""Writes FOLDER/air.csv: daily mean PM10 at 70 rural background stations in Germany, 1998 to 2009, one line a measured value.

The data set `air` of the R package spacetime (Debian r-cran-spacetime; European Environment Agency, AirBase). The
package is fetched by apt-get and unpacked, not installed: R is not needed.
"""
import csv
import datetime
import pathlib
import sys
import tempfile

import numpy
import rdata

from debian_data import fetch, fields, matrix

PACKAGE = "r-cran-spacetime"
FILE = "usr/lib/R/site-library/spacetime/data/air.rda"


def main(folder):
    with tempfile.TemporaryDirectory() as scratch:
        variables = fields(rdata.parser.parse_file(fetch(PACKAGE, FILE, scratch)).object)
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
