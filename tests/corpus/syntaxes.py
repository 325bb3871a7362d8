"""Our images in other transfer syntaxes (PS3.5 annex A), compressed with imagecodecs."""

from collections.abc import Callable

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

Frame = npt.NDArray[np.uint16]


# What each makes of a frame of 12 bits in 16. JPEG-LS and HTJ2K say 16 bits in their own headers.
ENCODERS: dict[str, Callable[[Frame], bytes | bytearray | memoryview]] = {
    JPEGLosslessSV1: lambda frame: imagecodecs.jpeg8_encode(
        frame, lossless=True, predictor=1, bitspersample=12
    ),
    JPEGExtended12Bit: lambda frame: imagecodecs.jpeg8_encode(frame, level=95, bitspersample=12),
    JPEGLSLossless: lambda frame: imagecodecs.jpegls_encode(frame, level=0),
    JPEGLSNearLossless: lambda frame: imagecodecs.jpegls_encode(frame, level=4),
    JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_encode(
        frame, level=0, codecformat="j2k", bitspersample=12, reversible=True
    ),
    JPEG2000: lambda frame: imagecodecs.jpeg2k_encode(
        frame, level=60, codecformat="j2k", bitspersample=12, reversible=False
    ),
    HTJ2KLossless: lambda frame: imagecodecs.htj2k_encode(frame, reversible=True),
}
SIXTEEN_BITS = frozenset({JPEGLSLossless, JPEGLSNearLossless, HTJ2KLossless})
LOSSY: dict[str, str] = {
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
}
UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
TRANSFER_SYNTAXES: tuple[str, ...] = (*UNCOMPRESSED, RLELossless, *ENCODERS)
"""All that `transcode` can make."""


def transcode(ds: FileDataset, transfer_syntax: str) -> FileDataset:
    """Change a generated single-frame image in Explicit VR Little Endian in place, and return it."""
    if transfer_syntax == ExplicitVRLittleEndian:
        return ds
    if transfer_syntax == RLELossless:
        ds.compress(RLELossless, generate_instance_uid=False)
        return ds
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    frame = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
    if transfer_syntax in ENCODERS:
        packed = ENCODERS[transfer_syntax](frame)
        ds.PixelData = encapsulate([bytes(packed)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        if transfer_syntax in SIXTEEN_BITS:
            ds.BitsStored, ds.HighBit = 16, 15
        if transfer_syntax in LOSSY:
            ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", LOSSY[transfer_syntax]
            ds.LossyImageCompressionRatio = round(frame.nbytes / len(packed), 3)
            ds.ImageType = ["DERIVED", *ds.ImageType[1:]]
    elif transfer_syntax == ExplicitVRBigEndian:
        ds.PixelData = frame.astype(">u2").tobytes()
        ds.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
    elif transfer_syntax not in UNCOMPRESSED:
        raise ValueError(f"no encoder for {transfer_syntax}")
    return ds
