"""fovea/io/image against nibabel and SimpleITK: both ways, every voxel type, every way to say where a grid lies."""
import glob
import gzip
import itertools
import pathlib
import struct
import subprocess

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from probe import PROBE, ask, digest, refusal, run, shared

TYPES = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "u32": np.uint32, "i32": np.int32, "u64": np.uint64, "i64": np.int64,
         "f32": np.float32, "f64": np.float64}
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.5) @ np.diag([-1.5, 0.75, 3.25]), [-31.25, 12.5, 7.75])
SHEARED = np.array([[2, 0.4, 0, -5], [0, 1.5, 0.2, 6], [0.1, 0, 3, -7], [0, 0, 0, 1.0]])


def voxels(dtype, shape=(5, 7, 4), seed=0):
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)
    return rng.standard_normal(shape).astype(dtype)


def zyx(array):
    """nibabel's (x, y, z[, c]) as our [c, z, y, x]."""
    return array.T


def itk_affine(image):
    """RAS+ affine of a SimpleITK image, which thinks in LPS."""
    n = 3
    matrix = np.array(image.GetDirection()).reshape(n, n) * np.array(image.GetSpacing())
    return nib.affines.from_matvec(np.diag([-1, -1, 1]) @ matrix, np.diag([-1, -1, 1]) @ np.array(image.GetOrigin()))


def affine_of(facts):
    return np.vstack([facts["affine"], [0, 0, 0, 1]])


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_reads_what_nibabel_wrote_in_every_type(tmp_path, endian, version, ending):
    Image = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    Header = nib.Nifti1Header if version == 1 else nib.Nifti2Header
    for name, dtype in TYPES.items():
        data = voxels(dtype)
        header = Header(endianness=endian)
        header.set_data_dtype(dtype)
        image = Image(data, OBLIQUE, header)
        path = tmp_path / f"{name}.{ending}"
        nib.save(image, path)
        facts = ask("read", path)
        assert (facts["format"], facts["big_endian"], facts["dtype"], facts["shape"]) == (f"nifti{version}", endian == ">", name, [4, 7, 5])
        assert facts["sha256"] == digest(zyx(data)), name
        np.testing.assert_allclose(affine_of(facts), nib.load(path).affine, rtol=0, atol=1e-6)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (0, 2), (4, 0)], ids=["qform", "sform", "both", "sform2", "qform4"])
def test_takes_the_affine_from_the_form_in_use(tmp_path, codes):
    data = voxels(np.int16)
    for flip in itertools.product([1, -1], repeat=3):
        affine = OBLIQUE @ np.diag([*flip, 1.0])
        image = nib.Nifti1Image(data, affine)
        image.set_qform(affine, code=codes[0])
        image.set_sform(affine if codes[1] else None, code=codes[1])
        nib.save(image, tmp_path / "a.nii")
        facts = ask("read", tmp_path / "a.nii")
        assert facts["affine_source"] == ("sform" if codes[1] else "qform")
        np.testing.assert_allclose(affine_of(facts), nib.load(tmp_path / "a.nii").affine, rtol=0, atol=2e-6)
        assert facts["axes"] == "".join(nib.aff2axcodes(affine))


def test_says_so_when_only_the_spacing_is_known(tmp_path):
    image = nib.Nifti1Image(voxels(np.int16), None)
    image.header.set_zooms((1.5, 2, 2.5))
    nib.save(image, tmp_path / "a.nii")
    facts = ask("info", tmp_path / "a.nii")
    assert facts["affine_source"] == "pixdim" and "orientation is unknown" in facts["notes"][0]
    np.testing.assert_array_equal(np.diag(affine_of(facts)), [1.5, 2, 2.5, 1])


def test_keeps_a_sheared_affine_as_it_is(tmp_path):
    nib.save(nib.Nifti1Image(voxels(np.uint8), SHEARED), tmp_path / "a.nii.gz")
    ask("copy", tmp_path / "a.nii.gz", ":made" + str(tmp_path / "b.nii.gz"))
    back = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_allclose(back.affine, SHEARED, rtol=0, atol=1e-6)
    assert back.header["qform_code"] == 0, "a quaternion would contradict the shear"


def test_applies_slope_and_intercept_as_nibabel_does(tmp_path):
    for dtype, slope, inter in [(np.int16, 0.5, -1024), (np.uint8, 2, 0), (np.uint16, 1, -1024), (np.int32, 1e-3, 5), (np.float64, 3, 1)]:
        data = voxels(dtype)
        header = nib.Nifti1Header()
        header.set_data_dtype(dtype)
        header.set_sform(OBLIQUE, 1)
        header.set_data_shape(data.shape)
        header.set_slope_inter(slope, inter)
        with open(tmp_path / "a.nii", "wb") as file:
            header["magic"], header["vox_offset"] = b"n+1", 352
            file.write(header.binaryblock + b"\0\0\0\0" + data.tobytes("F"))
        facts = ask("read", tmp_path / "a.nii")
        slope, inter = (float(np.float32(v)) for v in (slope, inter))
        assert facts["dtype"] == "f32"
        assert facts["sha256"] == digest(zyx((slope * data.astype(np.float64) + inter).astype(np.float32)))


@pytest.mark.parametrize("shape", [(5, 7, 4, 3), (5, 7, 4, 1, 3), (5, 7), (9,), (5, 7, 1)])
def test_channel_axes_and_missing_axes(tmp_path, shape):
    data = voxels(np.float32, shape)
    nib.save(nib.Nifti1Image(data, np.diag([2, 3, 4, 1.0])), tmp_path / "a.nii")
    facts = ask("read", tmp_path / "a.nii")
    assert facts["channels"] == (3 if len(shape) > 3 else 1)
    assert facts["shape"] == [*([1, 1, 1] + list(shape[:3][::-1]))[-3:]]
    assert facts["sha256"] == digest(zyx(data))
    ask("copy", tmp_path / "a.nii", tmp_path / "b.nii.gz")
    back = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.squeeze(back.get_fdata()), np.squeeze(data))
    if len(shape) > 3:
        assert back.shape == shape


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd"])
@pytest.mark.parametrize("made", ["", ":made"])
def test_nibabel_and_simpleitk_agree_with_what_we_write(tmp_path, ending, made):
    for name, dtype in TYPES.items():
        data = voxels(dtype)
        nib.save(nib.Nifti1Image(data, OBLIQUE, dtype=dtype), tmp_path / "in.nii")
        out = tmp_path / f"{name}.{ending}"
        ask("copy", tmp_path / "in.nii", made + str(out))
        image = sitk.ReadImage(str(out))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), zyx(data))
        np.testing.assert_allclose(itk_affine(image), OBLIQUE, rtol=0, atol=1e-5)
        if ending != "nrrd":
            back = nib.load(out)
            np.testing.assert_array_equal(np.asanyarray(back.dataobj), data)
            assert back.get_data_dtype() == dtype
            np.testing.assert_allclose(back.affine, OBLIQUE, rtol=0, atol=1e-6)
            np.testing.assert_allclose(back.header.get_qform(), OBLIQUE, rtol=0, atol=1e-5)
        facts = ask("read", out)
        assert facts["sha256"] == digest(zyx(data)) and facts["dtype"] == name
        np.testing.assert_allclose(affine_of(facts), OBLIQUE, rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_restores_the_sources_grid_bit_for_bit_and_nothing_that_names_a_patient(tmp_path, endian, version):
    Header = nib.Nifti1Header if version == 1 else nib.Nifti2Header
    Image = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    header = Header(endianness=endian)
    image = Image(voxels(np.int16), OBLIQUE, header)
    image.set_qform(OBLIQUE, 1)
    image.set_sform(OBLIQUE @ np.diag([1.01, 1, 1, 1]), 4)
    image.header["descrip"], image.header["aux_file"], image.header["intent_name"] = b"Mustermann^Erika", b"secret", b"19640812"
    if version == 1:
        image.header["db_name"], image.header["data_type"] = b"Mustermann", b"Erika"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Mustermann"))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "a.nii")
    ask("copy", tmp_path / "a.nii", tmp_path / "b.nii")
    a, b = nib.load(tmp_path / "a.nii").header, nib.load(tmp_path / "b.nii").header
    assert type(a) is type(b)
    for field in ["pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
                  "srow_x", "srow_y", "srow_z", "xyzt_units", "dim", "datatype", "bitpix", "dim_info"]:
        np.testing.assert_array_equal(a[field], b[field], err_msg=field)
    raw = (tmp_path / "b.nii").read_bytes()
    assert b"Muster" not in raw and b"secret" not in raw and b"1964" not in raw and b"Erika" not in raw
    empty = {"data_type", "db_name", "extents", "session_error", "regular", "intent_p1", "intent_p2", "intent_p3", "intent_code", "intent_name", "slice_start", "slice_end",
             "slice_code", "slice_duration", "cal_max", "cal_min", "toffset", "glmax", "glmin", "descrip", "aux_file", "unused_str"}
    fields = {name: place for name, place in b.template_dtype.fields.items() if name in empty}
    assert len(fields) >= 14
    for name, (dtype, offset) in fields.items():
        assert raw[offset:offset + dtype.itemsize] == bytes(dtype.itemsize), name


def test_equal_volumes_give_equal_files(tmp_path):
    nib.save(nib.Nifti1Image(voxels(np.int16), OBLIQUE), tmp_path / "a.nii")
    for ending in ["nii.gz", "nrrd", "nii"]:
        for n in range(2):
            ask("copy", tmp_path / "a.nii", tmp_path / f"{n}.{ending}")
        first = (tmp_path / f"0.{ending}").read_bytes()
        assert first == (tmp_path / f"1.{ending}").read_bytes()
        if ending == "nii.gz":
            assert first[4:8] == b"\0\0\0\0", "no time stamp"


def test_label_names_travel_in_the_file(tmp_path):
    nib.save(nib.Nifti1Image(voxels(np.uint8), OBLIQUE), tmp_path / "a.nii")
    names = {"1": "spleen", "2": 'kidney & "co" <left>', "300": "Leber (größer)", "4": "odd ]]> name"}
    words = [f"{k}={v}" for k, v in names.items()]
    for ending in ["nii", "nii.gz", "nrrd"]:
        ask("copy", tmp_path / "a.nii", tmp_path / f"b.{ending}", *words)
        assert ask("info", tmp_path / f"b.{ending}")["labels"] == names
        assert sitk.ReadImage(str(tmp_path / f"b.{ending}")).GetSize() == (5, 7, 4)
    extension = nib.load(tmp_path / "b.nii").header.extensions[0]
    assert extension.get_code() == 0
    import xml.etree.ElementTree as xml
    table = xml.fromstring(extension.get_content().rstrip(b"\0") if isinstance(extension.get_content(), bytes) else extension.get_content())
    assert {label.get("Key"): label.text for label in table.iter("Label")} == names
    ask("copy", tmp_path / "b.nii", tmp_path / "c.nii")
    assert "labels" not in ask("info", tmp_path / "c.nii"), "extensions are not carried unasked"


def test_reads_the_label_table_that_totalsegmentator_wrote():
    folder = shared()
    path = folder / "data/totalsegmentator-ct/example_seg.nii.gz" if folder else None
    if not path or not path.exists():
        pytest.skip("no shared TotalSegmentator example")
    names = ask("info", path)["labels"]
    assert names["1"] == "spleen" and names["5"] == "liver" and len(names) > 100


@pytest.mark.parametrize("compressed", [True, False])
def test_reads_nrrd_as_simpleitk_wrote_it(tmp_path, compressed):
    for name, dtype in TYPES.items():
        data = voxels(dtype)
        image = sitk.GetImageFromArray(zyx(data))
        image.SetSpacing((1.5, 0.75, 3.25)), image.SetOrigin((1, -2, 3.125))
        image.SetDirection(nib.eulerangles.euler2mat(0.3, -0.2, 0.5).ravel())
        for ending in ["nrrd", "nhdr"]:
            path = tmp_path / f"{name}.{ending}"
            sitk.WriteImage(image, str(path), useCompression=compressed)
            facts = ask("read", path)
            assert facts["sha256"] == digest(zyx(data)) and facts["dtype"] == name
            np.testing.assert_allclose(affine_of(facts), itk_affine(image), rtol=1e-12, atol=1e-12)


def test_nrrd_vectors_with_the_components_first_become_channels(tmp_path):
    data = voxels(np.float32, (4, 7, 5, 3))  # z y x c
    sitk.WriteImage(sitk.GetImageFromArray(data, isVector=True), str(tmp_path / "a.nrrd"))
    facts = ask("read", tmp_path / "a.nrrd")
    assert facts["channels"] == 3 and facts["sha256"] == digest(np.moveaxis(data, -1, 0))
    ask("copy", tmp_path / "a.nrrd", tmp_path / "b.nrrd")
    assert ask("read", tmp_path / "b.nrrd")["sha256"] == facts["sha256"]
    assert ask("read", tmp_path / "b.nrrd")["affine"] == facts["affine"]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.nrrd"))), data)


def test_refuses_voxel_types_that_are_no_scalars_by_name(tmp_path):
    rgb = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for data, word in [(np.zeros((3, 3, 3), np.complex64), "complex64"), (rgb, "RGB"), (np.zeros((3, 3, 3), np.complex128), "complex128")]:
        nib.save(nib.Nifti1Image(data, np.eye(4), dtype=data.dtype), tmp_path / "a.nii")
        assert f"voxel type {word} is not supported" in refusal("read", tmp_path / "a.nii")


def test_refuses_header_pairs_and_foreign_files_in_one_line(tmp_path):
    nib.save(nib.Nifti1Pair(voxels(np.int16), np.eye(4)), tmp_path / "pair.hdr")
    assert "header of a .hdr/.img pair" in refusal("read", tmp_path / "pair.hdr")
    nib.save(nib.Spm99AnalyzeImage(voxels(np.int16), np.eye(4)), tmp_path / "analyze.img")
    assert "not its magic" in refusal("read", tmp_path / "analyze.hdr")
    nib.save(nib.MGHImage(voxels(np.int32), np.eye(4)), tmp_path / "a.mgz")
    assert "something else than NIfTI inside" in refusal("read", tmp_path / "a.mgz")
    (tmp_path / "empty.nii").write_bytes(b"")
    assert "is empty" in refusal("read", tmp_path / "empty.nii")
    assert "is a folder" in refusal("read", tmp_path)
    assert "no such file" in refusal("read", tmp_path / "none.nii")
    nib.save(nib.Nifti1Image(voxels(np.int16), np.eye(4)), tmp_path / "a.nii")
    assert "unknown image ending" in refusal("copy", tmp_path / "a.nii", tmp_path / "a.png")
    assert "does not exist" in refusal("copy", tmp_path / "a.nii", tmp_path / "no" / "a.nii")


def test_a_tiny_file_that_asks_for_gigabytes_costs_little(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1300, 1300, 1300))
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    block = header.binaryblock + bytes(29)
    (tmp_path / "a.nii").write_bytes(block)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(block))
    for name in ["a.nii", "a.nii.gz"]:
        for limit, word in [("", "more than the limit of 8589934592"), ("99999999999", "truncated")]:
            environment = {"FOVEA_MAX_DECODED_BYTES": limit} if limit else {}
            done = run("read", tmp_path / name, environment=environment)
            assert done.returncode == 2 and word in done.stderr, done.stderr
            if not limit:
                assert "FOVEA_MAX_DECODED_BYTES" in done.stderr
            script = f"import resource,subprocess; subprocess.run({[str(PROBE), 'read', str(tmp_path / name)]}, env={environment}, stderr=-3); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
            kilobytes = int(subprocess.run(["python3", "-c", script], capture_output=True, text=True).stdout)
            assert kilobytes < 100 * 1024


def test_files_made_here_are_private_and_whole(tmp_path):
    nib.save(nib.Nifti1Image(voxels(np.int16), OBLIQUE), tmp_path / "a.nii")
    ask("copy", tmp_path / "a.nii", tmp_path / "b.nii.gz")
    assert (tmp_path / "b.nii.gz").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii", "b.nii.gz"]


STRACE = pathlib.Path("/usr/bin/strace")


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT"])
def test_a_failing_disk_ends_in_exit_3_and_leaves_the_old_file(tmp_path, call, error):
    if not STRACE.exists():
        pytest.skip("strace is not installed")
    nib.save(nib.Nifti1Image(voxels(np.int16, (64, 64, 64)), OBLIQUE), tmp_path / "a.nii")
    (tmp_path / "b.nii").write_bytes(b"old")
    done = subprocess.run([STRACE, "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1", PROBE, "copy", tmp_path / "a.nii", tmp_path / "b.nii"],
                          capture_output=True, text=True)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 1 and "b.nii: cannot" in done.stderr
    assert (tmp_path / "b.nii").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii", "b.nii"]


def test_a_killed_writer_leaves_the_old_file_and_its_rest_is_cleared_next_time(tmp_path):
    if not STRACE.exists():
        pytest.skip("strace is not installed")
    nib.save(nib.Nifti1Image(voxels(np.int16, (64, 64, 64)), OBLIQUE), tmp_path / "a.nii")
    (tmp_path / "b.nii").write_bytes(b"old")
    done = subprocess.run([STRACE, "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:signal=KILL:when=1", PROBE, "copy", tmp_path / "a.nii", tmp_path / "b.nii"],
                          capture_output=True, text=True)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert (tmp_path / "b.nii").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3, "the temporary of the killed writer"
    ask("copy", tmp_path / "a.nii", tmp_path / "b.nii")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii", "b.nii"]
    assert (tmp_path / "b.nii").read_bytes() != b"old"


def test_reads_real_scans_as_nibabel_and_simpleitk_do():
    folder = shared()
    paths = ["/usr/share/mricron/templates/ch2.nii.gz", "/usr/share/mricron/templates/aal.nii.gz"]
    if folder:
        paths += sorted(glob.glob(str(folder / "data/pyradiomics-tumour/*.nrrd")))[:4] + sorted(glob.glob(str(folder / "data/totalsegmentator-ct/*.nii.gz")))[:4]
        paths += sorted(glob.glob(str(folder / "data/msd-hippocampus/*/*_00*.nii.gz")))[:6]
    paths = [p for p in paths if pathlib.Path(p).exists()]
    if not paths:
        pytest.skip("no real scans here")
    for path in paths:
        facts = ask("read", path)
        if path.endswith("nrrd"):
            image = sitk.ReadImage(path)
            array, affine = sitk.GetArrayFromImage(image), itk_affine(image)
        else:
            image = nib.load(path)
            slope, inter = image.dataobj.slope, image.dataobj.inter
            array, affine = zyx(np.asanyarray(image.dataobj.get_unscaled())), image.affine
            if facts["dtype"] != facts["stored"]:
                array = (slope * array.astype(np.float64) + inter).astype(np.float32)
        assert facts["sha256"] == digest(array), path
        np.testing.assert_allclose(affine_of(facts), affine, rtol=0, atol=1e-5, err_msg=path)
