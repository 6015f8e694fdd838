"""What names a patient in an input reaches nothing that Fovea prints or writes: import, plan, train, predict, evaluate, explain, info."""
import gzip
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

import nibabel as nib
import numpy as np
import pytest
from pydicom.datadict import dictionary_VR

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent / folder) for folder in ("cli", "io")]
from dicom_plane import plane  # noqa: E402
from phantom import write_dataset  # noqa: E402
from program import PROGRAM, TINY, fovea  # noqa: E402

CANARIES = {"descrip": "Mustermann^Erika", "aux_file": "secret-aux-19640", "intent_name": "born-19640812", "db_name": "clinic-of-no-one", "data_type": "ward-7-bed", "extension": "MRN-0815-4711",
            "nrrd comment": "comment-of-Erika", "nrrd content": "content-of-Erika", "nrrd key": "key-of-Erika", "nrrd value": "value-of-Erika"}


# Attributes that DICOM PS3.15, table E.1-1, has a de-identifier remove or replace.
DICOM_ATTRIBUTES = """PatientName PatientID IssuerOfPatientID OtherPatientIDs OtherPatientNames PatientBirthDate PatientBirthTime PatientBirthName
 PatientMotherBirthName PatientAddress PatientTelephoneNumbers MilitaryRank BranchOfService MedicalRecordLocator EthnicGroup Occupation AdditionalPatientHistory
 PatientComments PatientReligiousPreference CountryOfResidence RegionOfResidence MedicalAlerts Allergies PatientState CurrentPatientLocation
 PatientInstitutionResidence ResponsiblePerson ResponsibleOrganization AccessionNumber StudyID StudyDescription SeriesDescription ProtocolName InstitutionName
 InstitutionAddress InstitutionalDepartmentName ReferringPhysicianName ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers PerformingPhysicianName
 NameOfPhysiciansReadingStudy OperatorsName PhysiciansOfRecord RequestingPhysician RequestingService RequestedProcedureDescription RequestedProcedureComments
 RequestedProcedureID AdmittingDiagnosesDescription AdmissionID ReasonForStudy ImageComments DerivationDescription AcquisitionComments StationName
 DeviceSerialNumber DetectorID GantryID ScheduledStationName PerformedStationAETitle PerformedStationName PerformedProcedureStepID
 PerformedProcedureStepDescription StudyDate SeriesDate AcquisitionDate ContentDate StudyTime SeriesTime StudyInstanceUID FrameOfReferenceUID
 SeriesInstanceUID SOPInstanceUID""".split()


def canary_of(number, keyword):
    """A value that the attribute may have and that stands nowhere else."""
    kind = dictionary_VR(keyword)
    return {"DA": f"{1801 + number}0317", "TM": f"031719.{500000 + number}", "UI": f"1.2.276.0.99.{815000 + number}", "PN": f"Kanarienvogel^N{number:02}", "AE": f"CANARYAE{number:02}"}.get(kind, f"canary-dicom-{number:02}")


OF_DICOM = {f"DICOM {keyword}": canary_of(n, keyword) for n, keyword in enumerate(DICOM_ATTRIBUTES)}
CANARIES |= OF_DICOM


def as_dicom(scan, folder):
    """The scan as a CT series that lies upright, with a canary in each attribute."""
    folder.mkdir()
    voxels = np.asarray(nib.load(scan).dataobj)
    values = np.clip(voxels, 0, 4095).astype(int)
    for z in range(values.shape[2]):
        d = plane(values[:, :, z].T, (0, 0, float(z)), spacing=(1, 1))
        for keyword in DICOM_ATTRIBUTES:
            setattr(d, keyword, OF_DICOM[f"DICOM {keyword}"])
        d.save_as(folder / f"{z:03}.dcm")


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
        as_nrrd(scan, root / "scan.nrrd"), as_dicom(scan, root / "series")
        placed = scan.read_bytes(), (root / "scan.nrrd").read_bytes(), (root / "series/000.dcm").read_bytes()
        assert [len(found_in("", content)) for content in placed] == [6, 4, len(OF_DICOM)], "the canaries are in their places"
        said = []
        for words in (["info", scan, root / "scan.nrrd"], ["info", scan, "--json"], ["plan", "-d", data, "-o", out / "plan.json"],
                      ["train", "-d", data, *TINY, "--fold", 0, "--steps", 2, "--threads", 1, "-o", out / "run"],
                      ["predict", "-m", out / "run/model", "-i", scan, "-o", out / "labels.nii.gz"], ["predict", "-m", out / "run/model", "-i", root / "scan.nrrd", "-o", out / "labels.nrrd"],
                      ["explain", "-m", out / "run/model", "-i", scan, "--voxel", "9,9,9", "-o", out / "maps"],
                      ["info", root / "series"], ["info", root / "series", "--json"], ["import", root / "series", "-o", out / "imported.nii.gz"], ["import", root / "series", "-o", out / "imported.nrrd", "--json"],
                      ["predict", "-m", out / "run/model", "-i", root / "series", "-o", out / "of_series.nii.gz"], ["explain", "-m", out / "run/model", "-i", root / "series", "--voxel", "9,9,9", "-o", out / "maps_of_series"]):
            done = fovea(*words)
            said.append((" ".join(map(str, words[:2])), (done.stdout + done.stderr).encode()))
        (root / "cut.nrrd").write_bytes(placed[1][:-100])
        (root / "series/007.dcm").write_bytes(placed[2][:-100])
        for damaged, more in (("cut.nrrd", []), ("series", []), ("series", ["--suv"])):
            words = ["import", root / damaged, *more, "-o", out / "none.nii.gz"] if more else ["predict", "-m", out / "run/model", "-i", root / damaged, "-o", out / "none.nii.gz"]
            done = subprocess.run([PROGRAM, *words], capture_output=True)
            assert done.returncode == 2
            said.append((f"{words[0]} of damaged {damaged}", done.stdout + done.stderr))
        written = [p for p in out.rglob("*") if p.is_file()]
        assert len(written) > 10
        hits = [hit for name, content in said for hit in found_in(name, content)] + [hit for p in written for hit in found_in(p.name, p.read_bytes())]
        print(f"{len(hits)} hits of {len(CANARIES)} canaries ({len(OF_DICOM)} of them in attributes of DICOM) in {len(said)} commands and {len(written)} files")
        assert not hits, hits
        open_to_others = [str(p.relative_to(out)) for p in [*written, *(d for d in out.rglob("*") if d.is_dir())] if stat.S_IMODE(os.stat(p).st_mode) & 0o077]
        assert not open_to_others, open_to_others
    finally:
        shutil.rmtree(root)
