"""Metadata with bulk data made into DICOM files, read back with pydicom."""

import io
import json
from typing import Any

import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.encaps import generate_frames

from node.domain.errors import Reason, Refusal
from node.web import multipart, stow_json
from node.web.multipart import PartBegins, PartData, PartEnds
from node.web.stow_json import MetadataRequest

BASE: dict[str, Any] = {
    "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.7"]},
    "00080018": {"vr": "UI", "Value": ["2.25.1"]},
}
Bulk = tuple[dict[str, str], bytes]


def part(headers: dict[str, str], *data: bytes) -> list[multipart.Event]:
    return [PartBegins(headers), *map(PartData, data), PartEnds()]


def files(metadata: Any, *bulk: Bulk, max_depth: int = 32, max_bytes: int = 1 << 20) -> list[bytes]:
    """The files that a request makes; `metadata` is sent as it is if it is bytes."""
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    events = part({"content-type": "application/dicom+json"}, text[:7], text[7:])
    for headers, data in bulk:
        events += part(headers, data)
    with MetadataRequest(max_metadata_bytes=max_bytes, max_depth=max_depth) as request:
        request.read(iter(events))
        return [b"".join(pieces) for pieces in request.instances()]


def refused(metadata: Any, *bulk: Bulk, **limits: int) -> Reason:
    with pytest.raises(Refusal) as caught:
        files(metadata, *bulk, **limits)
    return caught.value.reason


def one(metadata: dict[str, Any], *bulk: Bulk) -> pydicom.FileDataset:
    (file,) = files([metadata], *bulk)
    return pydicom.dcmread(io.BytesIO(file))


def pixels(uri: str, vr: str = "OW") -> dict[str, Any]:
    return {**BASE, "7FE00010": {"vr": vr, "BulkDataURI": uri}}


def octets(location: str, data: bytes) -> Bulk:
    return {"content-type": "application/octet-stream", "content-location": location}, data


def test_values_of_every_kind() -> None:
    read = one(
        {
            **BASE,
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "M\u00fcller^A", "Ideographic": "\u5c71"}]},
            "00280010": {"vr": "US", "Value": [512]},
            "00280030": {"vr": "DS", "Value": [0.1, 1 / 3]},
            "00200013": {"vr": "IS", "Value": [7]},
            "00080008": {"vr": "CS", "Value": ["ORIGINAL", None, "AXIAL"]},
            "00081140": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}, {}]},
            "00091001": {"vr": "OB", "InlineBinary": "AQID"},
            "00280009": {"vr": "AT", "Value": ["00181063"]},
            "00020010": {"vr": "UI", "Value": ["1.2.3"]},  # not of the dataset
        }
    )
    assert read.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert str(read.PatientName) == "M\u00fcller^A=\u5c71"
    assert read.SpecificCharacterSet == "ISO_IR 192"
    assert read.Rows == 512
    assert [float(value) for value in read.PixelSpacing] == pytest.approx([0.1, 1 / 3], abs=1e-9)
    assert read.InstanceNumber == 7
    assert list(read.ImageType) == ["ORIGINAL", "", "AXIAL"]
    assert [len(item) for item in read.ReferencedImageSequence] == [1, 0]
    assert read[0x00091001].value == b"\1\2\3\0"
    assert read.FrameIncrementPointer == 0x00181063


def number(vr: str, value: Any) -> Any:
    """What a single number in JSON becomes."""
    return one({**BASE, "00091001": {"vr": vr, "Value": [value]}})[0x00091001].value


@pytest.mark.parametrize("vr", ["US", "SS", "UL", "SL", "UV", "SV", "IS"])
@pytest.mark.parametrize("value", [1.5, -0.5, 1e-9, True, False, None, {}, [1], "1.5", "x", "\u0661"])
def test_no_number_is_cut_to_an_integer(vr: str, value: Any) -> None:
    if vr == "IS" and (value is None or isinstance(value, str)):
        return  # no value, or the text of one, which is taken as a file's would be
    assert refused([{**BASE, "00091001": {"vr": vr, "Value": [value]}}]) is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize("vr", ["US", "SS", "UL", "SL", "FL", "FD"])
def test_text_is_no_number_where_the_model_has_no_text(vr: str) -> None:
    assert refused([{**BASE, "00091001": {"vr": vr, "Value": ["1"]}}]) is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize("vr", ["FL", "FD", "DS"])
def test_truth_is_no_number(vr: str) -> None:
    assert refused([{**BASE, "00091001": {"vr": vr, "Value": [True]}}]) is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    ("vr", "value", "kept"),
    [
        ("US", 2.0, 2),
        ("SL", -7, -7),
        ("UV", "18446744073709551615", 2**64 - 1),
        ("SV", "-9223372036854775808", -(2**63)),
        ("IS", 3.0, 3),
        ("IS", "3", 3),
        ("DS", 1, 1),
        ("DS", "1.50", 1.5),
        ("DS", -1.2345678901234567e-100, pytest.approx(-1.2345678901e-100, rel=1e-8)),
        ("DS", 123456789012345678901, pytest.approx(1.2345678901234568e20, rel=1e-9)),
        ("FD", "inf", float("inf")),
        ("FL", "-inf", float("-inf")),
        ("FD", 3, 3.0),
    ],
)
def test_numbers_are_kept_as_the_model_has_them(vr: str, value: Any, kept: Any) -> None:
    assert number(vr, value) == kept


@pytest.mark.parametrize(
    ("vr", "value"), [("US", 65536), ("US", -1), ("UV", str(2**64)), ("DS", 10**400), ("AT", "0x181063")]
)
def test_numbers_that_do_not_fit(vr: str, value: Any) -> None:
    assert refused([{**BASE, "00091001": {"vr": vr, "Value": [value]}}]) is Reason.NOT_UNDERSTOOD


@given(st.floats(-1e300, 1e300))
def test_decimals_fit_their_vr(value: float) -> None:
    (file,) = files([{**BASE, "00180050": {"vr": "DS", "Value": [value]}}])
    text = file[file.rindex(b"DS") + 4 :].strip()
    assert len(text) <= 16
    assert float(text) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize(
    ("uri", "headers"),
    [
        ("bulk/1", {"content-location": "bulk/1"}),
        ("http://127.0.0.1:1/x", {"content-location": "http://127.0.0.1:1/x"}),
        ("cid:one@x", {"content-id": "<one@x>", "content-type": "application/octet-stream"}),
    ],
)
def test_bulk_data_is_found_among_the_parts(uri: str, headers: dict[str, str]) -> None:
    assert one(pixels(uri), (headers, b"odd")).PixelData == b"odd\0"


def test_parts_go_to_the_instances_that_name_them() -> None:
    second = {**pixels("b"), "00080018": {"vr": "UI", "Value": ["2.25.2"]}}
    made = files([pixels("a"), second, pixels("a")], octets("b", b"BB"), octets("a", b"AA"))
    assert [pydicom.dcmread(io.BytesIO(file)).PixelData for file in made] == [b"AA", b"BB", b"AA"]


def test_compressed_frames_are_encapsulated() -> None:
    jpeg = {"content-type": "image/jpeg", "content-location": "f"}
    read = one({**pixels("f", "OB"), "00280008": {"vr": "IS", "Value": [2]}}, (jpeg, b"one"), (jpeg, b"two!"))
    assert read.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
    assert list(generate_frames(read.PixelData, number_of_frames=2)) == [b"one\0", b"two!"]


def test_the_part_names_its_transfer_syntax() -> None:
    kind = "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.70"
    read = one(pixels("f", "OB"), ({"content-type": kind, "content-location": "f"}, b"\xff\xd8"))
    assert read.file_meta.TransferSyntaxUID == pydicom.uid.JPEGLosslessSV1


def test_compressed_data_elsewhere_than_in_the_pixels() -> None:
    wrong = {**BASE, "00091001": {"vr": "OB", "BulkDataURI": "f"}}
    assert refused([wrong], ({"content-type": "image/jpeg", "content-location": "f"}, b"x")) is (
        Reason.NOT_UNDERSTOOD
    )


@pytest.mark.parametrize(
    "uri", ["http://169.254.169.254/latest", "file:///etc/passwd", "", "cid:other", "../bulk/1"]
)
def test_what_is_no_part_is_never_fetched(uri: str) -> None:
    assert refused([pixels(uri)], octets("bulk/1", b"xx"), ({}, b"nameless")) is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{",
        b"7",
        b"[7]",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"\xff\xfe\xfa",
        b'[{"00200013": {"vr": "IS", "Value": [NaN]}}]',
        b'[{"00200013": {"vr": "IS", "Value": [1e999]}}]',
        b'[{"00200013": {"vr": "IS", "Value": [-Infinity]}}]',
        b'[{"00200013": {"vr": "IS", "Value": [' + b"9" * 5000 + b"]}}]",
    ],
)
def test_what_is_no_metadata(metadata: bytes) -> None:
    assert refused(metadata) is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    "wrong",
    [
        {"0010": {"vr": "LO"}},
        {"00100020": {"vr": "XX"}},
        {"00100020": {"Value": ["1"]}},
        {"00100020": {"vr": "LO", "Value": "1"}},
        {"00100020": {"vr": "LO", "Value": ["a\\b"]}},
        {"00100010": {"vr": "PN", "Value": ["A^B"]}},
        {"00280010": {"vr": "US", "Value": [65536]}},
        {"00280010": {"vr": "US", "Value": ["x"]}},
        {"00091001": {"vr": "OB", "Value": ["x"]}},
        {"00091001": {"vr": "OB", "InlineBinary": "*"}},
        {"00081140": {"vr": "SQ", "Value": [7]}},
        {"00100020": {"vr": "LO", "Value": ["x" * 70_000]}},
    ],
)
def test_what_does_not_fit_the_model(wrong: dict[str, Any]) -> None:
    assert refused([{**BASE, **wrong}]) is Reason.NOT_UNDERSTOOD


def test_instances_need_valid_uids() -> None:
    assert refused([{}]) is Reason.INVALID_UID
    assert refused([{**BASE, "00080018": {"vr": "UI", "Value": ["../../x"]}}]) is Reason.INVALID_UID


def test_nesting_is_limited() -> None:
    nested: dict[str, Any] = {}
    for _ in range(6):
        nested = {"00081140": {"vr": "SQ", "Value": [nested]}}
    assert files([{**BASE, **nested}], max_depth=7)
    assert refused([{**BASE, **nested}], max_depth=6) is Reason.NOT_UNDERSTOOD


def test_metadata_is_limited() -> None:
    assert refused([BASE], max_bytes=20) is Reason.TOO_LARGE


def test_bulk_data_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow_json, "MAX_BULK_BYTES", 1000)
    assert files([BASE], octets("a", bytes(1000)))
    assert refused([BASE], octets("a", bytes(1001))) is Reason.TOO_LARGE
    assert files([pixels("a")] * 2, octets("a", bytes(500)))
    assert refused([pixels("a")] * 3, octets("a", bytes(500))) is Reason.TOO_LARGE


def test_references_are_counted_even_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow_json, "MAX_REFERENCED_PARTS", 10)
    parts = [octets("a", b"")] * 5
    assert files([pixels("a")] * 2, *parts)
    assert refused([pixels("a")] * 3, *parts) is Reason.TOO_LARGE


def test_only_one_part_has_metadata() -> None:
    assert refused([BASE], ({"content-type": "application/dicom+json"}, b"[]")) is Reason.NOT_UNDERSTOOD
    with MetadataRequest(max_metadata_bytes=100, max_depth=4) as request:
        request.read(iter(part({"content-type": "text/plain"}, b"[]")))
        with pytest.raises(Refusal):
            request.instances()


def test_slow_senders_keep_nobody_waiting() -> None:
    sending = [MetadataRequest(max_metadata_bytes=1000, max_depth=4) for _ in range(20)]
    for request in sending:
        request.__enter__()
        request.read(iter(part({"content-type": "application/dicom+json"}, b"[")))
    assert len(files([BASE])) == 1
    for request in sending:
        request.__exit__(None, None, None)


def test_a_turn_is_given_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow_json, "_WAIT_SECONDS", 0.05)
    for _ in range(5):
        assert refused(b"{") is Reason.NOT_UNDERSTOOD
    event = part({}, json.dumps([BASE]).encode())
    requests = [MetadataRequest(max_metadata_bytes=1000, max_depth=4) for _ in range(3)]
    for request in requests:
        request.__enter__()
        request.read(iter(event))
    assert [len(request.instances()) for request in requests[:2]] == [1, 1]
    with pytest.raises(Refusal) as caught:
        requests[2].instances()
    assert caught.value.reason is Reason.TOO_MANY
    for request in requests:
        request.__exit__(None, None, None)
    assert len(files([BASE])) == 1


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
elements = st.fixed_dictionaries(
    {"vr": st.sampled_from(["LO", "PN", "SQ", "US", "FD", "IS", "DS", "AT", "OB", "UN", "UI", "??"])},
    optional={"Value": json_values, "InlineBinary": json_values, "BulkDataURI": json_values},
)
values = st.lists(
    st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=9), json_values), max_size=3
)


@given(
    st.dictionaries(
        st.sampled_from(["00100010", "00280010", "7FE00010", "xyz", "00081140"]),
        st.one_of(
            json_values,
            elements,
            elements.flatmap(lambda element: values.map(lambda found: {"vr": element["vr"], "Value": found})),
        ),
    )
)
@example({"00280009": {"vr": "AT", "Value": ["-1"]}})
@example({"00280010": {"vr": "DS", "Value": [True]}})
@example({"00280010": {"vr": "LO", "Value": ["\ud800"]}})
def test_any_metadata_makes_a_file_or_is_refused(attributes: dict[str, Any]) -> None:
    try:
        (file,) = files([{**BASE, **attributes}])
    except Refusal as refusal:
        assert refusal.reason in (Reason.NOT_UNDERSTOOD, Reason.INVALID_UID)
    else:
        assert pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True).SOPInstanceUID == "2.25.1"
