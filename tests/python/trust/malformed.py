#!/usr/bin/env python3
"""Makes damaged files of every format that Fovea reads, has them read, and counts how it ends.

    FOVEA_BUILD=build/release .venv/bin/python tests/python/trust/malformed.py [--cuts 500] [--flips 300] [--fields 400] [--seed 1] [--jobs 1]

cuts     a whole file cut at so many places: every one must be refused
flips    1 to 16 bits of the header turned: refused, or read with as many bytes as the shape says
fields   1 to 3 header fields set to extremes (-1, 0, 32767, NaN, 1e30, 5000 letters, %s%n, ../x): refused or read likewise
paths    files that name another file outside their folder, absolute, by .., by a link: refused

A refusal is exit code 2 with one line on stderr, nothing on stdout, and no file. Each file is read by a process of its own with
4 GiB of address space, 5 seconds and a limit of 64 MiB for what it may unpack to; a name put into every header must never come out. Every 25th is read by `fovea info` as well. Exit 1 if any file ended otherwise.
"""
import argparse
import concurrent.futures
import functools
import gzip
import io
import itertools
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
import torch

BUILD = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")).resolve()
DECODED = 64 << 20
EXTREMES = [-1, 0, 9, 255, 32767, float("nan"), float("inf"), 1e30]
CANARY = "DOE^JANE"  # in every field of the good files that may name a patient; may never be printed nor written
TEXTS = ["-1", "0", "9", "255", "32767", "nan", "inf", "1e30", "9" * 20, "a" * 5000, "%s%n", "../x", ""]


# ---- Good files, each with where its header ends.

def nifti():
    image = nib.Nifti1Image(np.arange(512, dtype=np.int16).reshape(8, 8, 8), np.diag([-1.5, 1.5, 2, 1]))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = CANARY.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", CANARY.encode()))
    return image.to_bytes()


def nrrd():
    fields = ["NRRD0004", "type: int16", "dimension: 3", "space: left-posterior-superior", "sizes: 8 8 8", "space directions: (1,0,0) (0,1,0) (0,0,2)",
              "kinds: domain domain domain", "endian: little", "encoding: raw", "space origin: (0,0,0)",
              f"# {CANARY}", f'content: "{CANARY}"', f"PatientName:={CANARY}", "", ""]
    return "\n".join(fields).encode() + np.arange(512, dtype="<i2").tobytes()


def dicom(folder=pathlib.Path("/dev/shm")):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, CTImageStorage, "1.2.3.4.5"
    d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID, d.Modality, d.SeriesInstanceUID, d.StudyInstanceUID, d.SeriesNumber = CTImageStorage, "1.2.3.4.5", "CT", "1.2.3.4", "1.2.3", 1
    d.PatientName = d.PatientID = d.StudyDescription = d.SeriesDescription = d.InstitutionName = d.ReferringPhysicianName = d.AccessionNumber = CANARY
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.ImagePositionPatient, d.ImageOrientationPatient, d.PixelSpacing, d.SliceThickness = [0, 0, 0], [1, 0, 0, 0, 1, 0], [1, 1], 2.5
    d.RescaleSlope, d.RescaleIntercept = 1, -1024
    d.PixelData = np.arange(256, dtype="<u2").tobytes()
    with tempfile.NamedTemporaryFile(suffix=".dcm") as out:
        d.save_as(out.name)
        return pathlib.Path(out.name).read_bytes()


def safetensors():
    header = {"__metadata__": {"format": "pt"}, "a.weight": {"dtype": "F32", "shape": [8, 8], "data_offsets": [0, 256]},
              "b.bias": {"dtype": "I64", "shape": [8], "data_offsets": [256, 320]}, "c": {"dtype": "BF16", "shape": [2, 3, 4], "data_offsets": [320, 368]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(368)


def pt():
    """What torch.save writes of a state dict, its storages not padded to 64 bytes."""
    out, small = io.BytesIO(), io.BytesIO()
    torch.save({"a.weight": torch.arange(64.0).reshape(8, 8), "b.bias": torch.arange(8), "c": torch.zeros(2, 3, 4, dtype=torch.bfloat16)}, out)
    with zipfile.ZipFile(out) as old, zipfile.ZipFile(small, "w") as new:
        for item in old.namelist():
            new.writestr(zipfile.ZipInfo(item), old.read(item))
    return small.getvalue()


def tiff():
    """A tiled pyramid of two levels, 96 x 64 and 48 x 32 pixels in tiles of 32 x 32."""
    out, links = bytearray(b"II*\0" + bytes(4)), [4]
    for width, height in ((96, 64), (48, 32)):
        across, down = -(-width // 32), -(-height // 32)
        starts = []
        for i in range(across * down):
            starts.append(len(out))
            out += bytes((37 * i + k) % 251 for k in range(32 * 32 * 3))
        bits, offsets = len(out), len(out) + 6
        out += struct.pack("<3H", 8, 8, 8) + struct.pack(f"<{len(starts)}I", *starts)
        counts = len(out)
        out += struct.pack(f"<{len(starts)}I", *[3072] * len(starts))
        resolution = len(out)
        out += struct.pack("<2I", 40000, 1)
        tags = [(254, 4, 1, int(width < 96)), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3),
                (282, 5, 1, resolution), (283, 5, 1, resolution), (284, 3, 1, 1), (296, 3, 1, 3), (322, 3, 1, 32), (323, 3, 1, 32), (324, 4, len(starts), offsets), (325, 4, len(starts), counts)]
        out[links[-1]:links[-1] + 4] = struct.pack("<I", len(out))
        out += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        links.append(len(out))
        out += bytes(4)
    return bytes(out)


def header_range(kind, good):
    return {"nifti": (0, 384), "nii.gz": (0, 40), "nrrd": (0, good.find(b"\n\n") + 2), "dicom": (128, good.find(b"\xe0\x7f\x10\0") + 12), "safetensors": (0, len(good) - 368),
            # The first directory and what belongs to it, behind the six tiles of level 0.
            "tiff": (8 + 6 * 3072, 8 + 6 * 3072 + 248), "pt": (good.find(b"PK\1\2"), len(good))}[kind]


GOOD = {"nifti": (nifti, ".nii"), "nii.gz": (lambda: gzip.compress(nifti(), mtime=0), ".nii.gz"), "nrrd": (nrrd, ".nrrd"), "dicom": (dicom, ".dcm"), "safetensors": (safetensors, ".safetensors"),
        "tiff": (tiff, ".tif"), "pt": (pt, ".pt")}


# ---- Damage.

def flipped(good, kind, rng):
    bad = bytearray(good)
    begin, end = header_range(kind, good)
    for _ in range(rng.randint(1, 16)):
        bad[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
    return bytes(bad)


NIFTI_FIELDS = [(0, "i"), *[(40 + 2 * i, "h") for i in range(8)], (70, "h"), (72, "h"), *[(76 + 4 * i, "f") for i in range(8)], (108, "f"), (112, "f"), (116, "f"), (123, "b"), (252, "h"), (254, "h"),
                *[(256 + 4 * i, "f") for i in range(18)], (344, "i"), (348, "i")]


def packed(code, value):
    if code == "f":
        return struct.pack("<f", min(value, 3e38) if value == value and abs(value) != float("inf") else value)
    bits = 8 * struct.calcsize(code)
    value = 0 if value != value else max(-(1 << bits - 1), min((1 << bits - 1) - 1, int(max(-1e18, min(1e18, value)))))
    return struct.pack("<" + code, value)


def with_extreme_fields(good, kind, rng):
    count = rng.randint(1, 3)
    if kind in ("nifti", "nii.gz"):
        bad = bytearray(good if kind == "nifti" else gzip.decompress(good))
        for offset, code in rng.sample(NIFTI_FIELDS, count):
            value = packed(code, rng.choice(EXTREMES))
            bad[offset:offset + len(value)] = value
        return bytes(bad) if kind == "nifti" else gzip.compress(bytes(bad), mtime=0)
    if kind == "nrrd":
        end = good.find(b"\n\n")
        lines = good[:end].decode().split("\n")
        for i in rng.sample(range(1, len(lines)), count):
            key, _, value = lines[i].partition(": ")
            words = value.split(" ")
            words[rng.randrange(len(words))] = rng.choice(TEXTS)
            lines[i] = f"{key}: {' '.join(words)}"
        if rng.random() < 0.3:
            lines.append(f"data file: {rng.choice(['../x', '/etc/passwd', 'x%d.raw 1 3 1', 'LIST', '.'])}")
        return "\n".join(lines).encode() + good[end:]
    if kind == "safetensors":
        text = good[8:-368].decode()
        header = json.loads(text)
        for name in rng.sample(["a.weight", "b.bias", "c"], min(count, 2)):
            part = rng.choice(["shape", "data_offsets", "dtype", "name"])
            if part == "name":
                header[rng.choice(TEXTS)] = header.pop(name)
            elif part == "dtype":
                header[name]["dtype"] = rng.choice(TEXTS)
            else:
                header[name][part][rng.randrange(len(header[name][part]))] = rng.choice([-1, 0, 9, 2**31, 2**63 - 1, 2**64 - 1, 1e30, None, "x"])
        text = json.dumps(header).encode()
        length = rng.choice([len(text)] * 6 + [0, 1, len(text) - 1, len(text) + 1, 100_000_001, 2**63, 2**64 - 1])
        return struct.pack("<Q", length) + text + good[-368:]
    if kind == "dicom":
        bad = bytearray(good)
        # Values of numbers and texts in place: tag, VR and length stay.
        data = pydicom.dcmread(pydicom.filebase.DicomBytesIO(good))
        names = ["Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                 "RescaleIntercept", "Modality", "PhotometricInterpretation", "PixelData"]
        for name in rng.sample(names, count):
            element = data[name]
            tag = struct.pack("<HH", element.tag.group, element.tag.element)
            at = bad.find(tag, 132)
            long_form = bad[at + 4:at + 6] in (b"OW", b"OB", b"SQ", b"UN")
            length_at, width = (at + 8, 4) if long_form else (at + 6, 2)
            length = int.from_bytes(bad[length_at:length_at + width], "little")
            begin = length_at + width
            if rng.random() < 0.3:
                bad[length_at:begin] = rng.choice([0, 1, 65535 if width == 2 else 0xfffffffe, 0xffff if width == 2 else 0xffffffff]).to_bytes(width, "little")
            elif bad[at + 4:at + 6] == b"US":
                bad[begin:begin + 2] = rng.choice([0, 1, 9, 255, 32767, 65535]).to_bytes(2, "little")
            else:
                text = rng.choice(TEXTS).encode()[:length].ljust(length, rng.choice([b" ", b"\\", b"9"]))
                bad[begin:begin + length] = text
        return bytes(bad)
    if kind == "pt":
        # The program byte by byte in an archive that is whole, or fields of the archive's directory.
        if rng.random() < 0.5:
            out = io.BytesIO()
            with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(out, "w") as new:
                for item in old.namelist():
                    content = bytearray(old.read(item))
                    for _ in range(count * item.endswith("data.pkl")):
                        content[rng.randrange(len(content))] = rng.choice([0, 1, 9, 0x28, 0x2e, 0x4d, 0x63, 0x7f, 0x80, 0xff])
                    new.writestr(zipfile.ZipInfo(item), bytes(content))
            return out.getvalue()
        bad = bytearray(good)
        entries = [i for i in range(len(good)) if good[i:i + 4] == b"PK\1\2"]
        for _ in range(count):
            where, code = rng.choice([(8, "H"), (10, "H"), (16, "I"), (20, "I"), (24, "I"), (28, "H"), (30, "H"), (42, "I")])
            struct.pack_into("<" + code, bad, rng.choice(entries) + where, rng.choice([0, 1, 9, 255, 32767, 65535] + ([2**31, 2**32 - 1, len(good) - 1] if code == "I" else [])))
        return bytes(bad)
    # TIFF: entries of a directory.
    bad = bytearray(good)
    for _ in range(count):
        directory = struct.unpack_from("<I", bad, 4)[0] if rng.random() < 0.7 else len(bad) - 4 - 15 * 12 - 2
        entry = min(directory, len(good) - 200) + 2 + 12 * rng.randrange(15)
        where, code = rng.choice([(8, "I"), (4, "I"), (2, "H"), (0, "H")])
        struct.pack_into("<" + code, bad, entry + where, rng.choice([0, 1, 2, 9, 255, 32767, 65535] + ([2**31, 2**32 - 1, len(good) - 1, directory] if code == "I" else [])))
    return bytes(bad)


def hostile_paths(folder):
    """Detached NRRD headers that point elsewhere; each is a file beside a real one outside of its folder."""
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret.raw").write_bytes(bytes(1024))
    inside = folder / "inside"
    inside.mkdir()
    (inside / "link.raw").symlink_to(outside / "secret.raw")
    (inside / "linked").symlink_to(outside)
    names = ["../outside/secret.raw", str(outside / "secret.raw"), "link.raw", "linked/secret.raw", "./../outside/secret.raw", "inside/../../outside/secret.raw", "..//outside/secret.raw", "/etc/passwd",
             "/dev/zero", "/proc/self/mem", "..\\outside\\secret.raw", "file:///etc/passwd", "%2e%2e/outside/secret.raw", "../outside/secret.raw\0x", "~/secret.raw", "$HOME/x", "`id`", ".", "..", "/"]
    files = []
    for i, name in enumerate(names):
        for key in ("data file", "datafile"):
            header = nrrd().split(b"\n\n")[0] + f"\n{key}: {name}\n\n".encode()
            files.append(inside / f"{i}-{key.replace(' ', '')}.nhdr")
            files[-1].write_bytes(header)
    return files


# ---- Reading.

class Ending:
    def __init__(self, words, folder):
        environment = dict(os.environ, FOVEA_MAX_DECODED_BYTES=str(DECODED))
        limits = lambda: (resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)), resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
        start = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = subprocess.Popen([str(w) for w in words], stdout=out, stderr=err, env=environment, preexec_fn=limits, cwd=folder)
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid or time.monotonic() - start > 60:
                    break
                time.sleep(0.002)
            if not pid:
                child.kill()
                _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0), err.seek(0)
            self.stdout, self.stderr = out.read(), err.read().decode(errors="replace")
        self.code, self.cpu_s, self.peak_bytes = child.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024

    def problem(self, may_be_read, left):
        """What is wrong about this ending, or None."""
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        if CANARY in self.stderr or CANARY.encode() in self.stdout:
            return "printed what names a patient"
        if self.cpu_s > 5:
            return f"took {self.cpu_s:.1f} s"
        if self.peak_bytes > DECODED + (200 << 20):
            return f"took {self.peak_bytes >> 20} MiB"
        if self.code == 0:
            return None if may_be_read else "was accepted"
        if self.code != 2:
            return f"exit code {self.code}: {self.stderr.strip()[:200]}"
        if len([line for line in self.stderr.splitlines() if not line.startswith("warning: ")]) != 1:
            return f"not one line: {self.stderr.strip()[:200]}"
        if self.stdout:
            return "printed a result"
        return f"left {left}" if left else None


def read_with_probe(path, kind, folder):
    if kind == "tiff":
        return Ending([BUILD / "fovea_io_probe", "slide", path], folder)
    weights = kind in ("safetensors", "pt")
    out = folder / ("out.safetensors" if weights else "out.nii")
    return Ending([BUILD / "fovea_io_probe", "convert" if weights else "copy", path, out], folder)


def campaign(cuts, flips, fields, seed, kinds=tuple(GOOD), program_every=25):
    """Yields (kind, damage, files, read, refused, problems, of which by the program)."""
    root = pathlib.Path(tempfile.mkdtemp(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None))
    number = 0

    def one(path, kind, may_be_read, tally):
        nonlocal number
        number += 1
        endings = [read_with_probe(path, kind, root)]
        if number % program_every == 0:
            endings.append(Ending([BUILD / "fovea", "info", path], root))
            tally["program"] += 1
        for ending in endings:
            # `info` looks at headers only: a volume that is cut behind its header may pass there, and only there.
            header_only = ending is endings[-1] and len(endings) == 2
            left = sorted(str(p.name) for p in root.iterdir() if p != path and p.name not in ("inside", "outside"))
            problem = ending.problem(may_be_read or header_only, left)
            if problem:
                tally["problems"].append(f"{path.name}: {problem}")
            for name in left:
                content = (root / name).read_bytes()
                if CANARY.encode() in (gzip.decompress(content) if name.endswith(".gz") else content):
                    tally["problems"].append(f"{path.name}: {name} names a patient")
                (root / name).unlink(missing_ok=True)
        tally["read" if endings[0].code == 0 else "refused"] += 1

    try:
        for kind in kinds:
            good, suffix = GOOD[kind][0](), GOOD[kind][1]
            rng = random.Random(f"{seed}-{kind}")
            path = root / f"whole{suffix}"
            path.write_bytes(good)
            first = read_with_probe(path, kind, root)
            if first.code != 0:
                raise SystemExit(f"malformed: the good {kind} file is refused: {first.stderr}")
            path.unlink()
            for name in root.iterdir():
                name.unlink()
            damages = {"cuts": [good[:len(good) * i // cuts] for i in range(cuts)], "flips": (flipped(good, kind, rng) for _ in range(flips)),
                       "fields": (with_extreme_fields(good, kind, rng) for _ in range(fields))}
            for damage, files in damages.items():
                tally = {"read": 0, "refused": 0, "program": 0, "problems": []}
                for i, content in enumerate(files):
                    path = root / f"{kind}-{damage}-{seed}-{i}{suffix}"
                    path.write_bytes(content)
                    before = len(tally["problems"])
                    one(path, kind, damage != "cuts", tally)
                    if len(tally["problems"]) > before and os.environ.get("FOVEA_KEEP_MALFORMED"):
                        shutil.copy(path, os.environ["FOVEA_KEEP_MALFORMED"])
                    path.unlink()
                yield kind, damage, tally
            if kind == "nrrd":
                tally = {"read": 0, "refused": 0, "program": 0, "problems": []}
                for path in hostile_paths(root):
                    one(path, "nrrd", False, tally)
                yield "nrrd", "paths", tally
    finally:
        shutil.rmtree(root)


def of_kind(kind, cuts, flips, fields, seed):
    return list(campaign(cuts, flips, fields, seed, kinds=[kind]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("cuts", 500), ("flips", 300), ("fields", 400), ("seed", 1), ("jobs", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    print(f"{'format':12} {'damage':7} {'files':>6} {'refused':>8} {'read':>6} {'by fovea':>9}  otherwise")
    rows, bad = [], 0
    with concurrent.futures.ProcessPoolExecutor(arguments.jobs) as pool:
        every = pool.map(functools.partial(of_kind, cuts=arguments.cuts, flips=arguments.flips, fields=arguments.fields, seed=arguments.seed), GOOD)
        for kind, damage, tally in itertools.chain.from_iterable(every):
            print(f"{kind:12} {damage:7} {tally['read'] + tally['refused']:6} {tally['refused']:8} {tally['read']:6} {tally['program']:9}  {len(tally['problems'])}", flush=True)
            for problem in tally["problems"][:10]:
                print(f"    {problem}")
            rows.append({"format": kind, "damage": damage, **tally})
            bad += len(tally["problems"])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
