"""What names a patient in an input reaches nothing that Fovea prints or writes: plan, train, predict, evaluate, explain, info."""
import gzip
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

import nibabel as nib
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
from phantom import write_dataset  # noqa: E402
from program import PROGRAM, TINY, fovea  # noqa: E402

CANARIES = {"descrip": "Mustermann^Erika", "aux_file": "secret-aux-19640", "intent_name": "born-19640812", "db_name": "clinic-of-no-one", "data_type": "ward-7-bed", "extension": "MRN-0815-4711",
            "nrrd comment": "comment-of-Erika", "nrrd content": "content-of-Erika", "nrrd key": "key-of-Erika", "nrrd value": "value-of-Erika"}


def marked(path):
    """The image with a canary in every field of its header that may hold text."""
    image = nib.load(path)
    voxels, affine, header = image.get_fdata(), image.affine, image.header
    fresh = nib.Nifti1Image(voxels.astype(image.get_data_dtype()), affine, header)
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        fresh.header[field] = CANARIES[field].encode()
    fresh.header.extensions.append(nib.nifti1.Nifti1Extension("comment", CANARIES["extension"].encode()))
    nib.save(fresh, path)


def as_nrrd(scan, path):
    image = nib.load(scan)
    a = image.affine
    columns = " ".join("(" + ",".join(f"{x:.9g}" for x in a[:3, c]) + ")" for c in range(3))
    lines = ["NRRD0005", f"# {CANARIES['nrrd comment']}", f"content: {CANARIES['nrrd content']}", "type: float", "dimension: 3", "space: right-anterior-superior",
             f"sizes: {' '.join(map(str, image.shape))}", f"space directions: {columns}", f"space origin: ({','.join(f'{x:.9g}' for x in a[:3, 3])})", "endian: little", "encoding: raw",
             f"{CANARIES['nrrd key']}:={CANARIES['nrrd value']}", "", ""]
    path.write_bytes("\n".join(lines).encode() + image.get_fdata().astype("<f4").tobytes(order="F"))


def found_in(name, content):
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return [f"{name}: {what}" for what, canary in CANARIES.items() if canary.encode() in content]


def test_no_canary_of_a_header_comes_out_of_any_command():
    if not pathlib.Path(PROGRAM).exists():
        pytest.skip(f"{PROGRAM} is not built")
    root = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None))
    try:
        data, out = write_dataset(root / "data", cases=2, tests=1), root / "out"
        out.mkdir()
        for image in data.rglob("*.nii.gz"):
            marked(image)
        scan = next((data / "imagesTs").glob("*.nii.gz"))
        as_nrrd(scan, root / "scan.nrrd")
        placed = scan.read_bytes(), (root / "scan.nrrd").read_bytes()
        assert len(found_in("scan", placed[0])) == 6 and len(found_in("nrrd", placed[1])) == 4, "the canaries are in their places"
        said = []
        for words in (["info", scan, root / "scan.nrrd"], ["info", scan, "--json"], ["plan", "-d", data, "-o", out / "plan.json"],
                      ["train", "-d", data, *TINY, "--fold", 0, "--steps", 2, "--threads", 1, "-o", out / "run"],
                      ["predict", "-m", out / "run/model", "-i", scan, "-o", out / "labels.nii.gz"], ["predict", "-m", out / "run/model", "-i", root / "scan.nrrd", "-o", out / "labels.nrrd"],
                      ["explain", "-m", out / "run/model", "-i", scan, "--voxel", "9,9,9", "-o", out / "maps"]):
            done = fovea(*words)
            said.append((" ".join(map(str, words[:2])), (done.stdout + done.stderr).encode()))
        cut = root / "cut.nrrd"
        cut.write_bytes(placed[1][:-100])
        done = subprocess.run([PROGRAM, "predict", "-m", out / "run/model", "-i", cut, "-o", out / "none.nii.gz"], capture_output=True)
        assert done.returncode == 2
        said.append(("predict of a damaged scan", done.stdout + done.stderr))
        written = [p for p in out.rglob("*") if p.is_file()]
        assert len(written) > 10
        hits = [hit for name, content in said for hit in found_in(name, content)] + [hit for p in written for hit in found_in(p.name, p.read_bytes())]
        print(f"{len(hits)} hits of {len(CANARIES)} canaries in {len(said)} commands and {len(written)} files")
        assert not hits, hits
        open_to_others = [str(p.relative_to(out)) for p in [*written, *(d for d in out.rglob("*") if d.is_dir())] if stat.S_IMODE(os.stat(p).st_mode) & 0o077]
        assert not open_to_others, open_to_others
    finally:
        shutil.rmtree(root)
