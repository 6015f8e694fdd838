"""DICOM series: geometry and voxels against SimpleITK (GDCM), SUV against its formula, and what is refused."""
import random
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

from dicom_plane import CANARY, plane
from probe import PROBE, ask, digest, refusal, run, shared

def turned(degrees=20):
    """Row and column direction of a plane turned about x, and its normal."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (1, 0, 0, 0, c, s), np.array([0, -s, c])


def series(folder, n=6, rows=19, columns=23, gap=2.5, step=None, orientation=(1, 0, 0, 0, 1, 0), normal=(0, 0, 1), **options):
    """A folder of n planes under names that say nothing of their order; returns the stored values [n, rows, columns]."""
    folder.mkdir(exist_ok=True)
    values = np.random.default_rng(3).integers(0, 4096, (n, rows, columns))
    names = [f"IM{i:04d}" for i in range(n)]
    random.Random(1).shuffle(names)
    for i in range(n):
        position = np.array([-40.5, 12.25, 100.0]) + i * (np.array(step) if step is not None else gap * np.array(normal))
        plane(values[i], position, orientation, **options).save_as(folder / names[i])
    return values


def as_itk_reads(folder):
    """Voxels [z, y, x] and the affine in RAS+ of SimpleITK's series reader."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), np.diag([-1.0, -1, 1, 1]) @ affine


def test_an_oblique_series_lies_where_itk_puts_it_whatever_its_files_are_called(tmp_path):
    orientation, normal = turned()
    series(tmp_path / "scan", orientation=orientation, normal=normal)
    got, (voxels, affine) = ask("read", tmp_path / "scan"), as_itk_reads(tmp_path / "scan")
    assert got["format"] == "dicom" and got["dtype"] == "i16" and got["units"] == "HU"
    assert got["shape"] == list(voxels.shape) and got["sha256"] == digest(voxels.astype(np.int16))
    np.testing.assert_allclose(got["affine"], affine[:3], atol=1e-4)


def test_a_tilted_gantry_stays_a_sheared_grid(tmp_path):
    series(tmp_path / "scan", step=(0, 0.6, 2.5))
    affine = np.array(ask("read", tmp_path / "scan")["affine"])
    np.testing.assert_allclose(affine[:, 2], [0, -0.6, 2.5], atol=1e-6)
    np.testing.assert_allclose(affine[:, 3], [40.5, -12.25, 100], atol=1e-6)


def test_a_slope_of_its_own_for_every_plane_gives_float32(tmp_path):
    values = np.random.default_rng(0).integers(-2000, 2000, (3, 8, 9))
    (tmp_path / "pet").mkdir()
    slopes = [0.5, 1.25, 3.75]
    for i in range(3):
        plane(values[i], (0, 0, 4 * i), slope=slopes[i], intercept=0, signed=True).save_as(tmp_path / "pet" / f"{i}.dcm")
    got = ask("read", tmp_path / "pet")
    assert got["dtype"] == "f32" and got["sha256"] == digest((values * np.array(slopes)[:, None, None]).astype(np.float32))


@pytest.mark.parametrize("program, words", [("dcmcrle", []), ("dcmcjpeg", ["+e1"]), ("dcmcjpeg", ["+el"]), ("dcmcjpls", [])])
def test_lossless_compressions_give_the_same_voxels(tmp_path, program, words):
    if not shutil.which(program):
        pytest.skip(f"{program} of Debian's dcmtk is not installed")
    series(tmp_path / "plain", n=3)
    (tmp_path / "packed").mkdir()
    for file in (tmp_path / "plain").iterdir():
        subprocess.run([program, *words, file, tmp_path / "packed" / file.name], check=True)
    assert not any(pydicom.dcmread(f).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian for f in (tmp_path / "packed").iterdir())
    assert ask("read", tmp_path / "packed")["sha256"] == ask("read", tmp_path / "plain")["sha256"]


def test_jpeg_2000_gives_the_same_voxels(tmp_path):
    image = sitk.GetImageFromArray(np.random.default_rng(5).integers(0, 4000, (1, 31, 45)).astype(np.uint16))
    for name, compressor in (("plain", None), ("packed", "JPEG2000")):
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / f"{name}.dcm"))
        if compressor:
            writer.UseCompressionOn()
            writer.SetCompressor(compressor)
        writer.Execute(image)
        d = pydicom.dcmread(tmp_path / f"{name}.dcm")  # ITK writes a secondary capture without a place
        d.ImagePositionPatient, d.ImageOrientationPatient, d.PixelSpacing = [0, 0, 0], [1, 0, 0, 0, 1, 0], [1, 1]
        d.save_as(tmp_path / f"{name}.dcm")
    assert "JPEG 2000" in pydicom.dcmread(tmp_path / "packed.dcm").file_meta.TransferSyntaxUID.name
    assert ask("read", tmp_path / "packed.dcm")["sha256"] == ask("read", tmp_path / "plain.dcm")["sha256"]


def test_the_frames_of_an_enhanced_file_are_put_in_their_places(tmp_path):
    values = np.random.default_rng(9).integers(0, 4096, (4, 7, 6))
    d = plane(values[0], (0, 0, 0))
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(d, name)
    d.NumberOfFrames = 4

    def group(**attributes):
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        return Sequence([item])

    shared_groups = Dataset()
    shared_groups.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared_groups.PixelMeasuresSequence = group(PixelSpacing=[0.5, 0.25], SliceThickness=3)
    shared_groups.PixelValueTransformationSequence = group(RescaleIntercept=-1024, RescaleSlope=1)
    d.SharedFunctionalGroupsSequence = Sequence([shared_groups])
    order = [2, 0, 3, 1]
    frames = []
    for z in order:
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[1, 2, 3 * z])
        frames.append(frame)
    d.PerFrameFunctionalGroupsSequence = Sequence(frames)
    d.PixelData = np.stack([values[z] for z in order]).astype("<u2").tobytes()
    d.save_as(tmp_path / "enhanced.dcm")
    got = ask("read", tmp_path / "enhanced.dcm")
    assert got["shape"] == [4, 7, 6] and got["sha256"] == digest((values - 1024).astype(np.int16))
    np.testing.assert_allclose(got["affine"], [[-0.25, 0, 0, -1], [0, -0.5, 0, -2], [0, 0, 3, 0]])


def pet(folder, correction="START", **changes):
    folder.mkdir()
    values = np.random.default_rng(2).integers(0, 30000, (3, 6, 5))
    for i in range(3):
        d = plane(values[i], (0, 0, 3 * i), slope=0.3, intercept=0, signed=True, modality="PT")
        d.Units, d.DecayCorrection, d.PatientWeight, d.SeriesTime, d.AcquisitionTime = "BQML", correction, 70.5, "100000", f"1000{30 + i}.50"
        tracer = Dataset()
        tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife, tracer.RadiopharmaceuticalStartTime = 3.7e8, 6586.2, "090000"
        for name, value in changes.items():
            target = tracer if name.startswith("Radio") else d
            if value is None:
                delattr(target, name)
            else:
                setattr(target, name, value)
        d.RadiopharmaceuticalInformationSequence = Sequence([tracer])
        d.save_as(folder / f"{i}.dcm")
    return values * 0.3


def test_suv_is_activity_by_weight_and_decayed_dose(tmp_path):
    activity = pet(tmp_path / "start")
    factor = 70.5e3 / (3.7e8 * 2 ** (-3600 / 6586.2))
    got = ask("read", tmp_path / "start", "suv")
    assert got["units"] == "SUV" and got["suv_per_unit"] == pytest.approx(factor, rel=1e-12)
    assert ask("read", tmp_path / "start")["sha256"] == digest(activity.astype(np.float32))
    pet(tmp_path / "admin", correction="ADMIN")
    assert ask("info", tmp_path / "admin")["suv_per_unit"] == pytest.approx(70.5e3 / 3.7e8, rel=1e-12)
    # A series stored again in the afternoon: the acquisition says when the scan was; injected before midnight.
    pet(tmp_path / "late", SeriesTime="170000", RadiopharmaceuticalStartTime="233000", AcquisitionTime="003000")
    assert ask("info", tmp_path / "late")["suv_per_unit"] == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("changes, says", [({"PatientWeight": None}, "PatientWeight"), ({"Units": "CNTS"}, "CNTS"), ({"RadionuclideTotalDose": 370}, "becquerel"),
                                           ({"DecayCorrection": "NONE"}, "DecayCorrection"), ({"RadionuclideHalfLife": None}, "HalfLife")])
def test_no_suv_is_made_up_where_the_header_does_not_say_enough(tmp_path, changes, says):
    pet(tmp_path / "pet", **changes)
    assert "suv_per_unit" not in ask("info", tmp_path / "pet")
    assert says in refusal("read", tmp_path / "pet", "suv")


def test_one_of_several_series_is_taken_only_by_its_number(tmp_path):
    series(tmp_path / "both", n=3)
    other = np.random.default_rng(1).integers(0, 4096, (2, 5, 4))
    for i in range(2):
        plane(other[i], (0, 0, i), series=8, uid="1.2.3.5").save_as(tmp_path / "both" / f"other{i}")
    line = refusal("read", tmp_path / "both")
    assert "7 (CT, 3 files)" in line and "8 (CT, 2 files)" in line and "--series" in line
    assert ask("read", tmp_path / "both", "8")["sha256"] == digest((other - 1024).astype(np.int16))
    assert "no series 9" in refusal("read", tmp_path / "both", "9")


def change(folder, which=2, **attributes):
    file = sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])[which]
    d = pydicom.dcmread(file)
    for name, value in attributes.items():
        if value is None:
            delattr(d, name)
        else:
            setattr(d, name, value)
    d.save_as(file)
    return file


@pytest.mark.parametrize("attributes, says", [
    ({"ImagePositionPatient": [-40.5, 12.25, 102.5]}, "lie in one place"), ({"ImagePositionPatient": [-40.5, 12.25, 106.0]}, "mm apart"),
    ({"ImagePositionPatient": [-38.5, 12.25, 105.0]}, "shifted"), ({"ImagePositionPatient": None}, "ImagePositionPatient"),
    ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "another direction"), ({"PixelSpacing": [1, 1]}, "PixelSpacing"), ({"PixelSpacing": None}, "PixelSpacing"),
    ({"Rows": 18}, "voxels"), ({"BitsStored": 17}, "BitsStored"), ({"BitsAllocated": 32}, "bits allocated"), ({"SamplesPerPixel": 3}, "colour"),
    ({"RescaleSlope": "nan"}, "RescaleSlope"), ({"NumberOfFrames": 2}, "frames")])
def test_a_series_that_does_not_add_up_is_refused_in_one_line(tmp_path, attributes, says):
    series(tmp_path / "scan")
    change(tmp_path / "scan", **attributes)
    assert says in refusal("read", tmp_path / "scan")


def test_a_missing_plane_is_named_by_its_neighbours(tmp_path):
    series(tmp_path / "scan")
    gone = change(tmp_path / "scan", which=3)
    neighbours = [sorted((tmp_path / "scan").iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])[i].name for i in (2, 4)]
    gone.unlink()
    line = refusal("read", tmp_path / "scan")
    assert "5 mm apart, the others 2.5 mm" in line and all(name in line for name in neighbours)


def test_names_of_patients_go_nowhere(tmp_path):
    series(tmp_path / "scan")
    done = run("copy", tmp_path / "scan", tmp_path / "out.nii")
    assert done.returncode == 0 and CANARY not in done.stdout + done.stderr
    assert CANARY.encode() not in (tmp_path / "out.nii").read_bytes()
    assert CANARY not in str(ask("info", tmp_path / "scan")) and CANARY not in refusal("read", tmp_path / "scan", "suv")


def test_cut_files_are_refused_and_damaged_ones_never_bring_the_program_down(tmp_path):
    series(tmp_path / "scan", n=1)
    file = next((tmp_path / "scan").iterdir())
    whole = file.read_bytes()
    draw = random.Random(0)
    for cut in sorted(draw.sample(range(132, len(whole) - 1), 40)):
        file.write_bytes(whole[:cut])
        assert run("read", file).returncode == 2, f"cut at {cut} of {len(whole)}"
    for _ in range(80):
        damaged = bytearray(whole)
        for _ in range(draw.choice([1, 4, 16])):
            damaged[draw.randrange(132, len(damaged))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        done = run("read", file)
        assert done.returncode in (0, 2) and done.stderr.count("\n") <= 2, (done.returncode, done.stderr)


def test_import_makes_a_nifti_file_of_a_series(tmp_path):
    program = PROBE.with_name("fovea")
    if not program.exists():
        pytest.skip(f"{program} is not built")
    series(tmp_path / "scan", n=3)
    pet(tmp_path / "pet")

    def fovea(*words):
        return subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60)

    done = fovea("import", tmp_path / "scan", "-o", tmp_path / "scan.nii.gz")
    assert done.returncode == 0 and done.stdout == f"{tmp_path}/scan.nii.gz\n", done.stderr
    assert ask("read", tmp_path / "scan.nii.gz")["sha256"] == ask("read", tmp_path / "scan")["sha256"]
    assert fovea("import", tmp_path / "pet", "--suv", "-o", tmp_path / "suv.nrrd").returncode == 0
    assert ask("read", tmp_path / "suv.nrrd")["sha256"] == ask("read", tmp_path / "pet", "suv")["sha256"]
    for words, says in (([tmp_path / "scan", "--suv"], "expected PT"), ([tmp_path / "scan", "--network", "swin_unetr"], "is a scan"), ([tmp_path], "not searched")):
        done = fovea("import", *words, "-o", tmp_path / "none.nii.gz")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and says in done.stderr, done.stderr
    assert not (tmp_path / "none.nii.gz").exists()


def test_a_decoder_that_dies_is_one_line(tmp_path):
    series(tmp_path / "scan")
    reader = tmp_path / "reader"
    for script, says in (("kill -SEGV $$", "its decoder ended with"), ("echo hello", "nothing that can be understood"), ("exit 9", "code 9")):
        reader.write_text(f"#!/bin/sh\n{script}\n")
        reader.chmod(0o755)
        done = run("read", tmp_path / "scan", environment={"FOVEA_READER": str(reader)})
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and says in done.stderr, done.stderr
    done = run("read", tmp_path / "scan", environment={"FOVEA_READER": "/nowhere/fovea_reader"})
    assert done.returncode == 3 and "FOVEA_READER" in done.stderr


def test_a_real_study_is_read_as_itk_reads_it():
    data = shared()
    if not data or not (data := data / "data/tcia-acrin-ctpet").is_dir():
        pytest.skip("the example CT/PET study is not here")
    voxels, affine = as_itk_reads(data / "CT")
    got = ask("read", data / "CT")
    assert got["sha256"] == digest(voxels.astype(np.int16))
    np.testing.assert_allclose(got["affine"], affine[:3], atol=1e-3)


def test_the_suv_of_a_real_study_are_those_worked_out_by_hand(tmp_path):
    data = shared()
    if not data or not (data := data / "data/tcia-acrin-ctpet").is_dir():
        pytest.skip("the example CT/PET study is not here")
    import nibabel
    assert run("copy", data / "PT_AC", tmp_path / "activity.nii").returncode == 0
    factor = ask("info", data / "PT_AC")["suv_per_unit"]
    ours, theirs = nibabel.load(tmp_path / "activity.nii"), nibabel.load(data / "pet_suvbw.nii.gz")
    flip = nibabel.as_closest_canonical
    difference = np.abs(flip(ours).get_fdata() * factor - flip(theirs).get_fdata())
    assert difference.max() <= 0.0021, "stored with steps of 0.002"
