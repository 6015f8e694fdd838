"""Writes FOLDER/colorado.csv: monthly means of daily maximum temperature at stations in Colorado with their elevation, 1960 to 1997, one line a value.

The data set `COmonthlyMet` of the R package fields (Debian r-cran-fields). The package is fetched by apt-get and unpacked,
not installed: R is not needed.
"""
import csv
import pathlib
import sys
import tempfile

import numpy
import rdata

from debian_data import fetch, fields

FIRST_YEAR = 1960


def main(folder):
    with tempfile.TemporaryDirectory() as scratch:
        variables = fields(rdata.parser.parse_file(fetch("r-cran-fields", "usr/lib/R/site-library/fields/data/COmonthlyMet.rda", scratch)).object)
    shape = fields(variables["CO.tmax"].attributes)["dim"].value         # years, months, stations
    values = numpy.reshape(variables["CO.tmax"].value, shape, order="F")  # °C, NaN: not measured
    places = numpy.stack([axis.value for axis in variables["CO.loc"].value], 1)  # longitude, latitude in degrees
    elevation = variables["CO.elev"].value
    names = [s.value.decode() for s in variables["CO.id"].value]
    years = [int(y) for y in variables["CO.years"].value]
    out = pathlib.Path(folder) / "colorado.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["month", "station", "longitude_deg", "latitude_deg", "elevation_m", "tmax_c"])
        for y, year in enumerate(years):
            for m in range(12):
                for s, name in enumerate(names):
                    if year >= FIRST_YEAR and not numpy.isnan(values[y, m, s]):
                        lines.writerow([f"{year}-{m + 1:02d}", name, *(f"{x:.5f}" for x in places[s]), f"{elevation[s]:g}", f"{values[y, m, s]:g}"])
    print(out)


main(sys.argv[1])
