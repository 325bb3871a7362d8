"""Generated studies: an anatomy-like phantom of ellipsoids plus noise, as valid DICOM.

The noise keeps every codec from shrinking the images to nothing. Everything follows from the arguments:
the same call gives the same bytes, on any machine.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from tests.corpus.people import PEOPLE, Person, Study, number, uid
from tests.corpus.syntaxes import transcode

Pixels = npt.NDArray[np.uint16]

# Ellipsoids: centre and half-axes in units of half the image (x to the left, y to the back, z to the
# head, each -1 to 1), and what they add: (Hounsfield units, MR signal, radiographic density).
ELLIPSOIDS = (
    ((0.00, 0.00, 0.0), (0.86, 0.62, 1.60), (1040.0, 620.0, 1.0)),  # trunk, in air
    ((-0.42, -0.04, 0.2), (0.30, 0.42, 0.90), (-840.0, -560.0, -0.5)),  # right lung
    ((0.42, -0.04, 0.2), (0.30, 0.42, 0.90), (-840.0, -560.0, -0.5)),  # left lung
    ((0.10, -0.16, 0.0), (0.22, 0.20, 0.35), (30.0, 180.0, 0.6)),  # heart
    ((-0.34, -0.06, -0.75), (0.38, 0.36, 0.45), (20.0, 120.0, 0.4)),  # liver
    ((0.00, 0.44, 0.0), (0.11, 0.12, 1.60), (560.0, -380.0, 0.9)),  # spine
    ((0.00, 0.40, 0.0), (0.035, 0.035, 1.60), (-540.0, 420.0, -0.3)),  # spinal canal
    ((0.07, 0.26, 0.0), (0.05, 0.05, 1.60), (150.0, -120.0, 0.2)),  # aorta
    ((-0.46, -0.18, 0.35), (0.05, 0.05, 0.06), (860.0, 500.0, 0.7)),  # a nodule
)


def phantom_slice(size: int, z: float, kind: int) -> npt.NDArray[np.float32]:
    """The phantom cut at height z (-1 to 1): size × size; kind 0 CT in HU above air, 1 MR, 2 X-ray."""
    plane = np.zeros((size, size), np.float32)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    for (x0, y0, z0), (a, b, c), values in ELLIPSOIDS:
        room = 1 - ((z - z0) / c) ** 2
        if room <= 0:
            continue
        rows = np.flatnonzero(np.abs(axis - y0) <= b)
        columns = np.flatnonzero(np.abs(axis - x0) <= a)
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = ((axis[box[1]] - x0) / a) ** 2 + (((axis[box[0]] - y0) / b) ** 2)[:, None] <= room
        plane[box] += np.where(inside, np.float32(values[kind]), np.float32(0))
    return plane


def _with_noise(plane: npt.NDArray[np.float32], sigma: float, seed: int) -> Pixels:
    noise = np.random.default_rng(seed).standard_normal(plane.shape, np.float32)
    return np.clip(plane + sigma * noise, 0, 4095).astype(np.uint16)


def new_dataset(sop_class: UID, modality: str, study: Study, series: int, instance: int) -> FileDataset:
    """Patient, study, series, equipment and image modules that all our images share, without pixels."""
    series_uid = uid("series", study.study_uid, series)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid("instance", series_uid, instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("implementation")
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    if study.person.character_set:
        ds.SpecificCharacterSet = list(study.person.character_set)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = study.date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = study.time
    ds.AccessionNumber, ds.Modality = study.accession, modality
    ds.BodyPartExamined = "CHEST"
    ds.Manufacturer, ds.ManufacturerModelName = "Phantom", "Ellipsoids"
    ds.ReferringPhysicianName = study.referring
    ds.StudyDescription, ds.SeriesDescription = study.description, f"{modality} phantom"
    ds.PatientName, ds.PatientID = study.person.name, study.person.patient_id
    ds.PatientBirthDate, ds.PatientSex = study.person.birth_date, study.person.sex
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study.study_uid, series_uid
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = str(study.seed), series, instance
    ds.AcquisitionNumber = 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    return ds


def set_pixels(ds: Dataset, pixels: Pixels, bits_stored: int = 12) -> None:
    """The image pixel module (PS3.3 C.7.6.3) for one 16-bit unsigned monochrome frame."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits_stored, bits_stored - 1, 0
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"


def set_plane(
    ds: Dataset, study: Study, spacing_mm: float, size: int, z_mm: float, thickness_mm: float
) -> None:
    """Frame of reference and image plane (PS3.3 C.7.4.1, C.7.6.2) of an axial slice, centred."""
    ds.FrameOfReferenceUID = uid("frame of reference", study.study_uid)
    ds.PositionReferenceIndicator = None
    ds.PatientPosition = "HFS"
    edge = round(-spacing_mm * (size - 1) / 2, 4)
    ds.ImagePositionPatient = [edge, edge, round(z_mm, 4)]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [spacing_mm, spacing_mm]
    ds.SliceThickness, ds.SliceLocation = thickness_mm, round(z_mm, 4)


def ct_series(
    slices: int = 500,
    size: int = 512,
    *,
    study: Study | None = None,
    series: int = 1,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> Iterator[FileDataset]:
    """A CT of the trunk, slice by slice, feet first; `size` rows and columns, 12 bits, 1 mm apart."""
    study = study or Study()
    spacing = round(400 / size, 4)
    for index in range(slices):
        ds = new_dataset(CTImageStorage, "CT", study, series, index + 1)
        set_plane(ds, study, spacing, size, index - slices / 2, 1.0)
        ds.KVP, ds.ConvolutionKernel = 120, "SOFT"
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
        ds.WindowCenter, ds.WindowWidth = 40, 400
        plane = phantom_slice(size, 2 * (index + 0.5) / slices - 1, 0) + np.float32(24)
        set_pixels(ds, _with_noise(plane, 18, number(ds.SOPInstanceUID)))
        yield transcode(ds, transfer_syntax)


def mr_series(
    slices: int = 256,
    size: int = 256,
    *,
    study: Study | None = None,
    series: int = 1,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> Iterator[FileDataset]:
    """An MR of the trunk, slice by slice, feet first; `size` rows and columns, 12 bits, 2 mm apart."""
    study = study or Study(Person("PHANTOM^MR", "PHANTOM-2"))
    spacing = round(400 / size, 4)
    for index in range(slices):
        ds = new_dataset(MRImageStorage, "MR", study, series, index + 1)
        set_plane(ds, study, spacing, size, 2 * index - slices, 2.0)
        set_mr(ds)
        ds.WindowCenter, ds.WindowWidth = 400, 800
        plane = phantom_slice(size, 2 * (index + 0.5) / slices - 1, 1) + np.float32(40)
        set_pixels(ds, _with_noise(plane, 25, number(ds.SOPInstanceUID)))
        yield transcode(ds, transfer_syntax)


def set_mr(ds: Dataset) -> None:
    """The MR image module (PS3.3 C.8.3.1) of a T1-weighted spin echo."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "NONE", None
    ds.MRAcquisitionType, ds.RepetitionTime, ds.EchoTime = "2D", 500, 15
    ds.EchoTrainLength, ds.MagneticFieldStrength, ds.FlipAngle = 1, 1.5, 90


def cr_image(
    columns: int = 2000,
    rows: int = 2500,
    *,
    study: Study | None = None,
    series: int = 1,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> FileDataset:
    """A frontal radiograph: the phantom's density added up from front to back, 12 bits."""
    study = study or Study(Person("PHANTOM^CR", "PHANTOM-3"))
    ds = new_dataset(ComputedRadiographyImageStorage, "CR", study, series, 1)
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.ViewPosition, ds.PatientOrientation = "AP", ["L", "F"]
    ds.PixelSpacing = ds.ImagerPixelSpacing = [0.175, 0.175]
    ds.WindowCenter, ds.WindowWidth = 1400, 2400
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    z = np.linspace(1, -1, rows, dtype=np.float32)[:, None]
    plane = np.full((rows, columns), 60, np.float32)
    for (x0, _, z0), (a, b, c), values in ELLIPSOIDS:
        chord = np.sqrt(np.clip(1 - ((x - x0) / a) ** 2 - ((z - z0) / c) ** 2, 0, None))
        plane += np.float32(2400 * b * values[2]) * chord
    set_pixels(ds, _with_noise(plane, 20, number(ds.SOPInstanceUID)))
    return transcode(ds, transfer_syntax)


def multiframe(
    path: Path, megabytes: int = 50, *, study: Study | None = None, series: int = 1, size: int = 512
) -> Path:
    """Write a multi-frame object with `megabytes` (10⁶ bytes) of frames or just above to `path`.

    Frames are written as they are made, so a gigabyte needs no memory: a multi-frame grayscale word
    secondary capture (PS3.3 A.8.4) in Explicit VR Little Endian, a run through the phantom.
    """
    study = study or Study(Person("PHANTOM^MULTIFRAME", "PHANTOM-4"))
    frame_bytes = size * size * 2
    frames = -(-megabytes * 10**6 // frame_bytes)
    ds = new_dataset(MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "OT", study, series, 1)
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType, ds.BurnedInAnnotation = "WSD", "NO"
    ds.PatientOrientation = None
    ds.PresentationLUTShape, ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "IDENTITY", 0, 1, "US"
    ds.NumberOfFrames, ds.FrameIncrementPointer, ds.FrameTime = frames, 0x00181063, 40
    ds.WindowCenter, ds.WindowWidth = 1024, 2048
    set_pixels(ds, np.zeros((size, size), np.uint16))
    del ds.PixelData
    ds.save_as(path, enforce_file_format=True)
    seed = number(ds.SOPInstanceUID)
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OW\0\0" + (frames * frame_bytes).to_bytes(4, "little"))
        for index in range(frames):
            plane = phantom_slice(size, 2 * (index + 0.5) / frames - 1, 0)
            file.write(_with_noise(plane, 18, seed + index).astype("<u2").tobytes())
    return path


def many_studies(patients: int = 50, studies_each: int = 2, *, seed: int = 1) -> Iterator[FileDataset]:
    """Tiny images, one to three for each study, with varied patients, dates, modalities and texts.

    For query tests: names differ in case, accents and components, dates run over 2015 to 2024.
    """
    rng = np.random.default_rng(seed)
    families = ("PHANTOM", "Phantom", "Phantôme", "TESTER", "Test-Case", "O'TEST", "SPECIMEN", "VAN DER TEST")
    given = ("Alpha", "BETA", "Gamma Delta", "Épsilon", "zeta", "Eta^Theta", "IOTA^^DR")
    descriptions = ("CHEST PA", "Head w/o contrast", "Knee left", "ABDOMEN", "Follow-up")
    for index in range(patients):
        person = Person(
            name=f"{rng.choice(families)}^{rng.choice(given)}",
            patient_id=f"MANY-{seed}-{index:05d}",
            birth_date=f"{rng.integers(1930, 2015)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}",
            sex=str(rng.choice(["F", "M", "O"])),
        )
        for which in range(studies_each):
            study = Study(
                person,
                which,
                date=f"{rng.integers(2015, 2025)}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}",
                time=f"{rng.integers(0, 24):02d}{rng.integers(0, 60):02d}{rng.integers(0, 60):02d}",
                accession=f"{seed:02d}{index:05d}{which:02d}",
                description=str(rng.choice(descriptions)),
            )
            for instance in range(1, int(rng.integers(1, 4)) + 1):
                yield small_image(study, instance=instance, modality=str(rng.choice(["CT", "MR", "CR"])))


def small_image(
    study: Study | None = None, *, series: int = 1, instance: int = 1, modality: str = "OT"
) -> FileDataset:
    """A secondary capture of 32 × 32 pixels; each modality is a series of its own."""
    study = study or Study(Person("PHANTOM^SMALL", "PHANTOM-5"))
    series_number = 100 * series + ("CT", "MR", "CR", "OT").index(modality)
    ds = new_dataset(SecondaryCaptureImageStorage, modality, study, series_number, instance)
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType, ds.PatientOrientation = "WSD", None
    set_pixels(ds, _with_noise(phantom_slice(32, 0, 0), 18, number(ds.SOPInstanceUID)))
    return ds


def character_set_images() -> Iterator[FileDataset]:
    """One small image for each person of `PEOPLE`, texts encoded in that person's character set."""
    for person in PEOPLE.values():
        ds = small_image(Study(person))
        ds.RequestAttributesSequence = Sequence([Dataset()])
        ds.RequestAttributesSequence[0].RequestedProcedureID = "1"
        ds.RequestAttributesSequence[0].ScheduledProcedureStepID = "1"
        ds.RequestAttributesSequence[0].ScheduledProcedureStepDescription = person.name.split("^")[0]
        yield ds
