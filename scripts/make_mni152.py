"""Writes FOLDER/mni152/{t1,gm,wm}.nii.gz: the MNI152 average head (ICBM 2009a, symmetric) and its shares of grey and white
matter, out of the PyPI package nilearn, which is fetched and unpacked, not installed."""
import pathlib
import sys

from fetch_wheel import fetched_wheel

PACKAGE = "nilearn==0.14.1"
target = pathlib.Path(sys.argv[1]) / "mni152"
parts = ("t1", "gm", "wm")
if all((target / f"{part}.nii.gz").exists() for part in parts):
    print(f"data mni152: {target} is there")
    sys.exit()
with fetched_wheel("mni152", PACKAGE, megabytes=12) as wheel:
    target.mkdir(parents=True, exist_ok=True)
    for part in parts:
        name = f"nilearn/datasets/data/mni_icbm152_{part}_tal_nlin_sym_09a_converted.nii.gz"
        if name not in wheel.namelist():
            sys.exit(f"data mni152: {PACKAGE} holds no {name}")
        (target / f"{part}.nii.gz").write_bytes(wheel.read(name))
print(f"data mni152: wrote {', '.join(parts)} to {target}")
