"""One file of a DICOM series, as a scanner would write it."""
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

CANARY = "CANARY^PATIENT"


def plane(values, position, orientation=(1, 0, 0, 0, 1, 0), spacing=(0.8, 0.7), slope=1, intercept=-1024, signed=False, series=7, uid="1.2.3.4", modality="CT"):
    """One file of a series; values [rows, columns]."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else PositronEmissionTomographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    d.PatientName, d.PatientID, d.StudyDescription, d.SeriesDescription = CANARY, CANARY, CANARY, CANARY
    d.Modality, d.SeriesInstanceUID, d.StudyInstanceUID, d.SeriesNumber = modality, uid, "1.2.3", series
    d.Rows, d.Columns = values.shape
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16 if signed else 12, 15 if signed else 11, int(signed)
    d.ImagePositionPatient, d.ImageOrientationPatient = [f"{x:.6g}" for x in position], [f"{x:.8g}" for x in orientation]
    d.PixelSpacing, d.SliceThickness = list(spacing), 2.5
    d.RescaleSlope, d.RescaleIntercept = slope, intercept
    d.PixelData = values.astype("<i2" if signed else "<u2").tobytes()
    return d
