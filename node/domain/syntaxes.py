"""Transfer syntaxes (PS3.6 annex A): what each one is, and which can be turned into which.

Edges ask here before anything is read: which presentation contexts a stored instance can go out on,
and which Accept headers can be met. What `can_transcode` claims is what `node.adapters.decoder` does
for images that the syntax can hold at all; a single object may still be refused (16-bit pixels into
8-bit JPEG, a frame over the memory limit).
"""

from dataclasses import dataclass

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
JPEG_XL_RECOMPRESSION = "1.2.840.10008.1.2.4.111"
JPEG_XL = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"

OCTET_STREAM = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Syntax:
    """One transfer syntax.

    `lossy`: True if it only holds lossy compressed pixels, False if only lossless ones, None if the
    pixels tell. `media_type`: of a frame or bulk data in it (PS3.18 tables 8.7.3-4 and 8.7.3-5).
    `deflated`: the whole dataset is one deflated stream (PS3.5 section A.5).
    """

    uid: str
    name: str
    media_type: str = OCTET_STREAM
    lossy: bool | None = False
    encapsulated: bool = True
    explicit: bool = True
    big_endian: bool = False
    deflated: bool = False
    video: bool = False
    retired: bool = False


def _native(
    uid: str,
    name: str,
    *,
    explicit: bool = True,
    big_endian: bool = False,
    deflated: bool = False,
    video: bool = False,
    retired: bool = False,
) -> Syntax:
    return Syntax(uid, name, OCTET_STREAM, False, False, explicit, big_endian, deflated, video, retired)


def _video(suffix: str, name: str, media_type: str) -> Syntax:
    return Syntax(f"1.2.840.10008.1.2.4.{suffix}", name, media_type, lossy=True, video=True)


def _retired_jpeg(suffix: int, name: str, lossy: bool = True) -> Syntax:
    return Syntax(f"1.2.840.10008.1.2.4.{suffix}", name, "image/jpeg", lossy=lossy, retired=True)


_TABLE = (
    _native(IMPLICIT_LITTLE, "Implicit VR Little Endian", explicit=False),
    _native(EXPLICIT_LITTLE, "Explicit VR Little Endian"),
    Syntax(ENCAPSULATED_UNCOMPRESSED, "Encapsulated Uncompressed Explicit VR Little Endian"),
    _native(DEFLATED, "Deflated Explicit VR Little Endian", deflated=True),
    _native(EXPLICIT_BIG, "Explicit VR Big Endian", big_endian=True, retired=True),
    Syntax(JPEG_BASELINE, "JPEG Baseline (Process 1)", "image/jpeg", lossy=True),
    Syntax(JPEG_EXTENDED, "JPEG Extended (Process 2 and 4)", "image/jpeg", lossy=True),
    _retired_jpeg(52, "JPEG Extended (Process 3 and 5)"),
    _retired_jpeg(53, "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)"),
    _retired_jpeg(54, "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)"),
    _retired_jpeg(55, "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)"),
    _retired_jpeg(56, "JPEG Full Progression, Non-Hierarchical (Process 11 and 13)"),
    Syntax(JPEG_LOSSLESS, "JPEG Lossless, Non-Hierarchical (Process 14)", "image/jpeg"),
    _retired_jpeg(58, "JPEG Lossless, Non-Hierarchical (Process 15)", lossy=False),
    _retired_jpeg(59, "JPEG Extended, Hierarchical (Process 16 and 18)"),
    _retired_jpeg(60, "JPEG Extended, Hierarchical (Process 17 and 19)"),
    _retired_jpeg(61, "JPEG Spectral Selection, Hierarchical (Process 20 and 22)"),
    _retired_jpeg(62, "JPEG Spectral Selection, Hierarchical (Process 21 and 23)"),
    _retired_jpeg(63, "JPEG Full Progression, Hierarchical (Process 24 and 26)"),
    _retired_jpeg(64, "JPEG Full Progression, Hierarchical (Process 25 and 27)"),
    _retired_jpeg(65, "JPEG Lossless, Hierarchical (Process 28)", lossy=False),
    _retired_jpeg(66, "JPEG Lossless, Hierarchical (Process 29)", lossy=False),
    Syntax(
        JPEG_LOSSLESS_SV1,
        "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
        "image/jpeg",
    ),
    Syntax(JPEG_LS_LOSSLESS, "JPEG-LS Lossless Image Compression", "image/jls"),
    Syntax(JPEG_LS_NEAR_LOSSLESS, "JPEG-LS Lossy (Near-Lossless) Image Compression", "image/jls", lossy=True),
    Syntax(JPEG_2000_LOSSLESS, "JPEG 2000 Image Compression (Lossless Only)", "image/jp2"),
    Syntax(JPEG_2000, "JPEG 2000 Image Compression", "image/jp2", lossy=None),
    Syntax(
        "1.2.840.10008.1.2.4.92",
        "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)",
        "image/jpx",
    ),
    Syntax(
        "1.2.840.10008.1.2.4.93",
        "JPEG 2000 Part 2 Multi-component Image Compression",
        "image/jpx",
        lossy=None,
    ),
    _native("1.2.840.10008.1.2.4.94", "JPIP Referenced"),
    _native("1.2.840.10008.1.2.4.95", "JPIP Referenced Deflate", deflated=True),
    _video("100", "MPEG2 Main Profile / Main Level", "video/mpeg"),
    _video("100.1", "Fragmentable MPEG2 Main Profile / Main Level", "video/mpeg"),
    _video("101", "MPEG2 Main Profile / High Level", "video/mpeg"),
    _video("101.1", "Fragmentable MPEG2 Main Profile / High Level", "video/mpeg"),
    _video("102", "MPEG-4 AVC/H.264 High Profile / Level 4.1", "video/mp4"),
    _video("102.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1", "video/mp4"),
    _video("103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", "video/mp4"),
    _video("103.1", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", "video/mp4"),
    _video("104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", "video/mp4"),
    _video("104.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", "video/mp4"),
    _video("105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", "video/mp4"),
    _video("105.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", "video/mp4"),
    _video("106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", "video/mp4"),
    _video("106.1", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", "video/mp4"),
    _video("107", "HEVC/H.265 Main Profile / Level 5.1", "video/mp4"),
    _video("108", "HEVC/H.265 Main 10 Profile / Level 5.1", "video/mp4"),
    Syntax(JPEG_XL_LOSSLESS, "JPEG XL Lossless", "image/jxl"),
    Syntax(JPEG_XL_RECOMPRESSION, "JPEG XL JPEG Recompression", "image/jxl", lossy=True),
    Syntax(JPEG_XL, "JPEG XL", "image/jxl", lossy=None),
    Syntax(HTJ2K_LOSSLESS, "High-Throughput JPEG 2000 Image Compression (Lossless Only)", "image/jphc"),
    Syntax(
        HTJ2K_LOSSLESS_RPCL,
        "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)",
        "image/jphc",
    ),
    Syntax(HTJ2K, "High-Throughput JPEG 2000 Image Compression", "image/jphc", lossy=None),
    _native("1.2.840.10008.1.2.4.204", "JPIP HTJ2K Referenced"),
    _native("1.2.840.10008.1.2.4.205", "JPIP HTJ2K Referenced Deflate", deflated=True),
    Syntax(RLE_LOSSLESS, "RLE Lossless", "image/dicom-rle"),
    Syntax(DEFLATED_FRAMES, "Deflated Image Frame Compression"),
    _native("1.2.840.10008.1.2.6.1", "RFC 2557 MIME encapsulation", retired=True),
    _native("1.2.840.10008.1.2.6.2", "XML Encoding", retired=True),
    _native("1.2.840.10008.1.2.7.1", "SMPTE ST 2110-20 Uncompressed Progressive Active Video", video=True),
    _native("1.2.840.10008.1.2.7.2", "SMPTE ST 2110-20 Uncompressed Interlaced Active Video", video=True),
    _native("1.2.840.10008.1.2.7.3", "SMPTE ST 2110-30 PCM Digital Audio"),
)

SYNTAXES: dict[str, Syntax] = {syntax.uid: syntax for syntax in _TABLE}

NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG})

# Syntaxes whose frames the decoder reads.
DECODABLE = NATIVE | {
    ENCAPSULATED_UNCOMPRESSED,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_2000,
    JPEG_XL_LOSSLESS,
    JPEG_XL_RECOMPRESSION,
    JPEG_XL,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    HTJ2K,
    RLE_LOSSLESS,
    DEFLATED_FRAMES,
}

# Syntaxes that the decoder writes. All but JPEG_BASELINE are written without loss, also those that
# would allow it; Explicit VR Big Endian is retired and only read.
ENCODABLE = frozenset(
    {
        IMPLICIT_LITTLE,
        EXPLICIT_LITTLE,
        DEFLATED,
        ENCAPSULATED_UNCOMPRESSED,
        JPEG_BASELINE,
        JPEG_LOSSLESS,
        JPEG_LOSSLESS_SV1,
        JPEG_LS_LOSSLESS,
        JPEG_2000_LOSSLESS,
        JPEG_2000,
        JPEG_XL_LOSSLESS,
        JPEG_XL,
        HTJ2K_LOSSLESS,
        HTJ2K_LOSSLESS_RPCL,
        HTJ2K,
        RLE_LOSSLESS,
        DEFLATED_FRAMES,
    }
)


def can_decode(uid: str) -> bool:
    """Whether frames stored in this transfer syntax can be decoded and rendered."""
    return uid in DECODABLE


def can_transcode(source_uid: str, target_uid: str) -> bool:
    """Whether an object stored as `source_uid` can be sent as `target_uid` (True if they are the same)."""
    return source_uid == target_uid or (source_uid in DECODABLE and target_uid in ENCODABLE)


def lossy_method(uid: str) -> str | None:
    """Lossy Image Compression Method (PS3.3 section C.7.6.1.1.5.1) of a syntax that is always lossy."""
    return {
        JPEG_BASELINE: "ISO_10918_1",
        JPEG_EXTENDED: "ISO_10918_1",
        JPEG_LS_NEAR_LOSSLESS: "ISO_14495_1",
        JPEG_XL_RECOMPRESSION: "ISO_18181_1",
    }.get(uid)
