#!/usr/bin/env python3
"""Writes the seeds of tests/fuzz/corpus: one small good file, or a few, for each kind of input that a parser tells apart.

    .venv/bin/python tests/fuzz/make_corpus.py

Inputs that once broke a parser are added beside them by hand, as found-*; this script leaves those alone.
"""
import gzip
import io
import json
import pathlib
import struct
import zipfile

import nibabel as nib
import numpy as np
import torch

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def put(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def nifti(kind, dtype, shape, **fields):
    image = kind(np.arange(np.prod(shape)).reshape(shape).astype(dtype), np.diag([-1.5, -1, 2, 1]))
    image.header.set_xyzt_units("mm")
    for key, value in fields.items():
        image.header[key] = value
    return image.to_bytes()


def nrrd(fields, data):
    return ("NRRD0004\n" + "".join(f"{line}\n" for line in fields) + "\n").encode() + data


def images():
    small = (2, 3, 2)
    plain = nifti(nib.Nifti1Image, np.int16, small)
    put("nifti", "int16.nii", plain)
    put("nifti", "float64_slope.nii", nifti(nib.Nifti1Image, np.float64, small, scl_slope=2, scl_inter=-1))
    put("nifti", "channels.nii", nifti(nib.Nifti1Image, np.uint8, (2, 2, 2, 3)))
    put("nifti", "version2.nii", nifti(nib.Nifti2Image, np.float32, small))
    qform = nib.Nifti1Image(np.zeros(small, np.int16), None)
    qform.set_qform(np.array([[0, -1, 0, 3], [1, 0, 0, 2], [0, 0, 2, 1], [0, 0, 0, 1.0]]), 1)
    qform.set_sform(None, 0)
    put("nifti", "qform.nii", qform.to_bytes())
    swapped = nib.Nifti1Image(np.zeros(small, ">i2"), np.eye(4), nib.Nifti1Header(endianness=">"))
    put("nifti", "big_endian.nii", swapped.to_bytes())
    labels = nib.Nifti1Image(np.zeros(small, np.uint8), np.eye(4))
    xml = b'<?xml version="1.0"?><CaretExtension><VolumeInformation><LabelTable><Label Key="1" Red="1"><![CDATA[liver]]></Label></LabelTable></VolumeInformation></CaretExtension>'
    labels.header.extensions.append(nib.nifti1.Nifti1Extension(30, xml))
    labels.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment"))
    put("nifti", "extensions.nii", labels.to_bytes())

    packed = gzip.compress(plain, mtime=0)
    put("gzip", "one.nii.gz", packed)
    put("gzip", "two_members.nii.gz", gzip.compress(plain[:400], mtime=0) + gzip.compress(plain[400:], mtime=0))
    put("gzip", "stored_and_named.gz", b"\x1f\x8b\x08\x08" + bytes(6) + b"name\0" + packed[10:])
    put("gzip", "header_only.nii", plain[:352])

    voxels = np.arange(12, dtype="<i2").tobytes()
    grid = ["dimension: 3", "sizes: 2 3 2", "type: int16", "endian: little"]
    put("nrrd", "spacings.nrrd", nrrd([*grid, "spacings: 1 2 3", "encoding: raw"], voxels))
    put("nrrd", "directions.nrrd", nrrd([*grid, "space: left-posterior-superior", "space directions: (1,0,0) (0,2,0) (0,0,3)",
                                         "space origin: (1,-2,3.5)", "kinds: domain domain domain", "encoding: raw"], voxels))
    put("nrrd", "gzip.nrrd", nrrd([*grid, "space: RAS", "space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (0,0,0)", "encoding: gzip"], gzip.compress(voxels, mtime=0)))
    put("nrrd", "channels.nrrd", nrrd(["type: float", "dimension: 4", "space dimension: 3", "sizes: 2 1 2 1", "endian: big", "kinds: vector domain domain domain",
                                       "space directions: none (1,0,0) (0,1,0) (0,0,1)", "space origin: (0,0,0)", "space units: \"mm\" \"mm\" \"mm\"", "encoding: raw"],
                                      np.arange(4, dtype=">f4").tobytes()))
    put("nrrd", "segments.seg.nrrd", nrrd(["# a comment", "type: uchar", "dimension: 3", "sizes: 1 1 2", "encoding: raw", "Segment0_Name:=liver", "Segment0_LabelValue:=1"], b"\0\1"))
    put("nrrd", "detached.nhdr", nrrd([*grid, "spacings: 1 1 1", "encoding: raw", "byte skip: -1", "data file: voxels.raw"], b""))


def weights():
    def safetensors(header, data):
        text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
        return struct.pack("<Q", len(text)) + text + data
    put("safetensors", "two.safetensors", safetensors({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
                                                       "b.weight": {"dtype": "I64", "shape": [], "data_offsets": [8, 16]}}, bytes(16)))
    put("safetensors", "types.safetensors", safetensors({name: {"dtype": name, "shape": [1], "data_offsets": [start, start + width]} for name, start, width in
                                                         [("F64", 0, 8), ("BF16", 8, 2), ("F16", 10, 2), ("U8", 12, 1), ("BOOL", 13, 1)]}, bytes(14)))
    put("safetensors", "empty_tensor.safetensors", safetensors({"e": {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0]}}, b""))
    put("safetensors", "padded.safetensors", safetensors(b"{}      ", b""))

    for name, value in {"plain": {"w": torch.arange(4.0), "n": torch.ones(2, dtype=torch.int64)}, "nested": {"state_dict": {"w": torch.zeros(2, 2).t()}, "epoch": 3, "lr": 0.5},
                        "shared": dict.fromkeys(["a", "b"], torch.zeros(3, dtype=torch.bfloat16)), "parameter": {"p": torch.nn.Parameter(torch.zeros(2))}}.items():
        out = io.BytesIO()
        torch.save(value, out)
        # Packed again without the padding that aligns storages to 64 bytes: smaller seeds.
        small = io.BytesIO()
        with zipfile.ZipFile(out) as old, zipfile.ZipFile(small, "w") as new:
            for item in old.namelist():
                new.writestr(zipfile.ZipInfo(item), old.read(item))
                if item.endswith("data.pkl"):
                    put("pickle", f"{name}.pkl", old.read(item))
        put("torch_checkpoint", f"{name}.pt", small.getvalue())
    # Storage keys and sizes that fit the archive of the pickle target.
    for name, value in {"storage64": {"w": torch.zeros(16), "v": torch.zeros(8, dtype=torch.uint8)}, "strided": {"state_dict": {"w": torch.zeros(4, 4)[1:, ::2]}}}.items():
        out = io.BytesIO()
        torch.save(value, out)
        with zipfile.ZipFile(out) as archive:
            put("pickle", f"{name}.pkl", archive.read("archive/data.pkl"))


def texts():
    put("config", "all_keys.json", """// a comment
{"flag": false, "tiny": -7, "large": 18446744073709551615, "name": "a \\"b\\" \\u00e4", "folder": "x y", "roi": [1, 2, 3], /* another */ "weights": [0.5, 1e-3],
 "labels": {"liver": 1}, "mask_value": null, "blend": "constant", "stages": [{"rate": 0.25, "momentum": 0.9}], "rest": {"deep": [[[1, true]]]}}
""")
    put("config", "unknown_key.json", '{"stagez": 1}')
    put("config", "scalar.json", "-1.5e+3")
    for name, text in {"nested": "stages.0.rate=0.5", "list": "roi=[1,2,3]", "string": "name=swin", "object": 'rest={"a": 1}'}.items():
        put("config", f"override_{name}", text)

    put("csv", "plain.csv", "name,age,score\nann,50,0.5\nbob,,NA\n")
    put("csv", "quoted.csv", '\ufeffa,"b ""c"""\r\n"1,2","line\nend"\r\n\r\n3,4')
    put("csv", "one_column.csv", "x\n1e5\n-inf\nnan\n\n")

    put("alignment", "two.fasta", ">one first\nACDEFGHIKL\nMNPQ\n>two\nACDEF-HIKLMNPX\n")
    put("alignment", "insertions.a3m", ">one\nACDE\n>two\nA-cdDE\n>three\nAC.D-\n")
    put("alignment", "blocks.sto", "# STOCKHOLM 1.0\n#=GF ID x\none ACD\ntwo A-D\n#=GC SS_cons ...\n\none EF\ntwo EF\n//\n")
    put("alignment", "blocks.aln", "CLUSTAL W (1.83) multiple sequence alignment\n\none      ACDE 4\ntwo      A-DE 3\n         * **\n\none      FG 6\ntwo      F_ 4\n")
    put("alignment", "two.fasta.gz", gzip.compress(b">a\nACD\n>b\nA-D\n", mtime=0))

    put("idx", "two_by_three.idx", b"\0\0\x08\x02\0\0\0\x02\0\0\0\x03abcdef")
    put("idx", "labels.gz", gzip.compress(b"\0\0\x08\x01\0\0\0\x03\1\2\3", mtime=0))

    put("label_table", "cdata.xml", '<?xml version="1.0" encoding="UTF-8"?><CaretExtension><Date/><VolumeInformation Index="0"><LabelTable>'
        '<Label Key="0" Red="0" Green="0" Blue="0" Alpha="0"><![CDATA[???]]></Label><Label Key="2" Red="1" Green="0.5" Blue="0" Alpha="1"><![CDATA[liver]]></Label></LabelTable></VolumeInformation></CaretExtension>')
    put("label_table", "escaped.xml", "<LabelTable><Label Red='1'  Key='-3' >a &amp; b &lt;c&gt; &#228;&#x41;&quot;&apos;</Label>\n<Label Key=\"7\"/></LabelTable>")

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##a", "lesion", "of", "8", "mm", "les", "##ion", ",", ".", "left"]
    put("word_pieces", "vocab.txt", "\n".join(pieces) + "\n")
    put("word_pieces", "text", "Rundherd, 8 mm im \u00c4PEX \u53f3\u80ba e\u0301 \ufffd\u200b\t[SEP]")

    head = {"shape": [2, 3, 4], "affine": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2.5, -3]], "dtype": "i16", "modality": "CT", "units": "HU", "notes": ["a remark"], "file_bytes": 1000}
    put("reader_message", "ct", json.dumps(head))
    put("reader_message", "pet", json.dumps({**head, "dtype": "f32", "modality": "PT", "units": "BQML", "suv_per_unit": 1.25e-4, "notes": []}))

    put("reader_message", "slide", json.dumps({"vendor": "aperio", "levels": [[800, 600, 1], [200, 150, 4.0]], "um_per_pixel": 0.25, "objective_power": 40, "file_bytes": 1000, "notes": []}))

    put("reader_message", "features", json.dumps({"rows": 5, "columns": 4, "coord_rows": 5, "encoder": "uni_v1", "numbers": {"patch_size": 256}}))

    files = {name: {"bytes": 80, "sha256": "0" * 64} for name in ("optimizer.safetensors", "state.json", "timing.json", "weights.safetensors")}
    put("checkpoint", "manifest.json", json.dumps({"format": "fovea-checkpoint", "version": 1, "step": 1, "files": files}, indent=2) + "\n")
    put("checkpoint", "later_version.json", json.dumps({"format": "fovea-checkpoint", "version": 2, "step": 1, "files": files}, indent=2) + "\n")
    put("checkpoint", "outside.json", json.dumps({"format": "fovea-checkpoint", "version": 1, "step": 1, "files": {**files, "../x": files["state.json"]}}, indent=2) + "\n")


images(), weights(), texts()
