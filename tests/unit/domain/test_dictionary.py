import subprocess
import sys

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

from node.domain.dictionary import SIGNED_BY_PIXELS, keyword_of, tag_of, vr_of


def test_it_agrees_with_pydicom_on_every_tag() -> None:
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr == "NONE":
            continue
        assert vr_of(tag) in vr.split(" or "), f"{tag:08X}"
        assert keyword_of(tag) == keyword
        assert (tag in SIGNED_BY_PIXELS) == (vr == "US or SS")
        if keyword:
            assert tag_of(keyword) == tag


def test_it_agrees_with_pydicom_on_repeating_groups() -> None:
    for pattern, (vr, _, _, _, keyword) in RepeatersDictionary.items():
        tag = int(pattern.replace("x", "2"), 16)
        if tag & 0x10000 or tag in DicomDictionary:
            continue
        assert vr_of(tag) in vr.split(" or "), pattern
        assert keyword_of(tag) == keyword


def test_what_no_table_holds() -> None:
    assert vr_of(0x00280000) == vr_of(0x00090000) == "UL"
    assert vr_of(0x00090010) == vr_of(0x000900FF) == "LO"
    assert vr_of(0x00091010) == vr_of(0x00090001) == vr_of(0x00189999) == "UN"
    assert vr_of(0x50010010) == "LO"  # a private creator, not a curve
    assert vr_of(0x60FE0010) == "US"
    assert keyword_of(0x00091010) == keyword_of(0x00189999) == ""
    assert tag_of("NoSuchKeyword") is None


def test_importing_it_is_quick() -> None:
    """Under 20 ms, as each process pays it; the best of three, for a busy machine."""
    code = (
        "import re, pathlib, time; begun = time.perf_counter();"
        "import node.domain.dictionary; print(time.perf_counter() - begun)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.02
