"""HTTP and DICOMweb (RFC 9110, RFC 9112, PS3.18) under attack."""

import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from pydicom.dataset import FileDataset

from tests import corpus
from tests.hostile.target import CANARY, STUDIES, Target, an_image

pytestmark = pytest.mark.usefixtures("unharmed")

DICOM, DICOM_JSON, PROBLEM = "application/dicom", "application/dicom+json", "application/problem+json"
STORED, FAILED, OTHERS = "00081199", "00081198", "0008119A"


def part(content: bytes, media_type: str = DICOM) -> bytes:
    """A part of a multipart message."""
    return b"--frontier\r\nContent-Type: " + media_type.encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--frontier--\r\n"


def multipart(kind: str = DICOM, boundary: str = "frontier") -> str:
    """Its Content-Type."""
    return f'multipart/related; type="{kind}"; boundary={boundary}'


def post(
    target: Target, body: bytes | Iterator[bytes], media_type: str | None = None, study: str = "", **more: str
) -> requests.Response:
    """A STOW-RS request."""
    headers = {"Content-Type": media_type or multipart(), **more}
    return target.ask("POST", STUDIES + (f"/{study}" if study else ""), data=body, headers=headers)


def uids(answer: requests.Response, sequence: str) -> list[str]:
    """SOP Instance UIDs of an answer's sequence."""
    items = answer.json().get(sequence, {}).get("Value", [])
    return [item["00081155"]["Value"][0] for item in items]


def raw(target: Target, sent: bytes) -> bytes:
    """All that is answered to bytes as they are."""
    with socket.create_connection(("127.0.0.1", target.archive.http_port), timeout=60) as connection:
        connection.sendall(sent)
        received = bytearray()
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            pass  # what it did not read is thrown away with the connection
    return bytes(received)


def head(target: Target, *lines: str, request: str = f"POST {STUDIES} HTTP/1.1") -> bytes:
    """A request's head with the administrator's token."""
    token = target.tokens["administrator"]
    whole = (
        request,
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        "Connection: close",
        *lines,
        "",
        "",
    )
    return "\r\n".join(whole).encode()


# --- Sizes and encodings ---


def test_too_large_as_it_says_itself(target: Target) -> None:
    """413, without reading it all: a tebibyte, of which nine MiB are sent."""
    lines = (f"Content-Type: {multipart()}", f"Content-Length: {1 << 40}")
    answer = raw(target, head(target, *lines) + bytes(9 << 20))
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.unnoticed("by another archive than the one that is watched")
def test_too_large_as_it_turns_out(narrow: Target) -> None:
    """413 for a chunked body beyond the limit, of 4 MiB here, and for an instance beyond its own."""
    endless = (part(bytes(1 << 20), "text/plain") for _ in range(6))
    assert post(narrow, endless).status_code == 413
    image = an_image()
    image.PixelData = bytes(2 << 20)
    image.Rows, image.Columns = 1024, 1024
    answer = post(narrow, part(corpus.encode(image)) + END)
    assert answer.status_code == 413
    assert uids(answer, FAILED) == [image.SOPInstanceUID]


@pytest.mark.unnoticed("by another archive than the one that is watched")
def test_store_full(full: Target) -> None:
    """507."""
    assert post(full, part(corpus.encode(an_image())) + END).status_code == 507


@pytest.mark.unnoticed("by another archive than the one that is watched")
def test_catalog_not_writable(read_only: Target) -> None:
    """503, and when to try again."""
    answer = post(read_only, part(corpus.encode(an_image())) + END)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_compressed_body(target: Target, encoding: str) -> None:
    """A gzip bomb, 1 MiB that would be a gigabyte: 415, never unpacked; RFC 9110 section 12.5.3 has
    Accept-Encoding say what is taken."""
    bomb = gzip.compress(bytes(200 << 20), 9)
    answer = post(target, bomb, **{"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert "Accept-Encoding" in answer.headers


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "identity, chunked", "chunked, chunked"])
def test_a_compressed_transfer(target: Target, coding: str) -> None:
    """501 for a transfer coding that is not served (RFC 9112 section 6.1), or 400; never unpacked."""
    lines = (f"Transfer-Encoding: {coding}", f"Content-Type: {multipart()}")
    answer = raw(target, head(target, *lines) + b"0\r\n\r\n")
    assert answer[9:12] in (b"400", b"501"), answer[:200]


# --- Messages ---


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (part(b"x") + END, multipart(boundary="")),
        (part(b"x") + END, f'multipart/related; type="{DICOM}"'),
        (part(b"x") + END, multipart(boundary="x" * 1000)),
        (part(b"x") + END, multipart(boundary='"front\\\\ier\x01"')),
        (part(b"x") + END, multipart(boundary="another")),
        (b"--frontier" + b" " * 100_000, multipart()),
        (b"--frontier\r\n" + b"X: y\r\n" * 10_000 + b"\r\n" + END, multipart()),
        (b"--frontier\r\nCANARYBIRD\r\n\r\nx\r\n" + END, multipart()),
        (part(b"x"), multipart()),
        (b"", multipart()),
    ],
    ids=[
        "empty", "none", "too long", "characters", "another one", "padding", "headers", "no header",
        "no end", "no body",
    ],
)  # fmt: skip
def test_a_bad_boundary(target: Target, body: bytes, media_type: str) -> None:
    """400."""
    answer = post(target, body, media_type)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == PROBLEM
    assert CANARY not in answer.text


@pytest.mark.slow
def test_ten_thousand_parts(target: Target) -> None:
    """Streamed: each is looked at as it comes, the good one among them is stored, memory stays as it is."""
    image = an_image()

    def body() -> Iterator[bytes]:
        junk = part(b"x" * 5000, "text/plain") * 100
        for _ in range(100):
            yield junk
        yield part(corpus.encode(image)) + END

    answer = post(target, body())
    assert answer.status_code == 202
    assert len(answer.json()[OTHERS]["Value"]) == 10_000
    assert uids(answer, STORED) == [image.SOPInstanceUID]


def test_another_study_than_the_address_says(target: Target) -> None:
    """409, and nothing stored."""
    image = an_image()
    answer = post(target, part(corpus.encode(image)) + END, study="1.2.3")
    assert answer.status_code == 409
    assert uids(answer, FAILED) == [image.SOPInstanceUID]
    assert not target.has(image.SOPInstanceUID)


def test_some_bad_parts(target: Target) -> None:
    """202 (PS3.18 section 10.5.3.1), each named: stored, failed, or without a name."""
    first, cut, last = an_image(), an_image(), an_image()
    body = part(corpus.encode(first)) + part(CANARY.encode()) + part(corpus.encode(cut)[:-10])
    answer = post(target, body + part(corpus.encode(last)) + END)
    assert answer.status_code == 202
    assert uids(answer, STORED) == [first.SOPInstanceUID, last.SOPInstanceUID]
    assert uids(answer, FAILED) == [cut.SOPInstanceUID]
    assert len(answer.json()[OTHERS]["Value"]) == 1
    assert CANARY not in answer.text


def metadata(image: FileDataset, location: str) -> dict[str, Any]:
    """Its JSON metadata, its pixels elsewhere."""
    found: dict[str, Any] = image.to_json_dict(bulk_data_threshold=1 << 30)
    found["7FE00010"] = {"vr": "OW", "BulkDataURI": location}
    return found


@pytest.mark.parametrize(
    "text",
    [b"[" * 1_000_000, b'[{"00081140":' * 100_000, b'[{"00081140":{"vr":"SQ","Value":[' * 200, b"[{}]", b"7"],
    ids=["lists", "objects", "sequences", "no instance", "a number"],
)
def test_deep_json(target: Target, text: bytes) -> None:
    """400, whatever it is nested of."""
    answer = post(target, part(text, DICOM_JSON) + END, multipart(DICOM_JSON))
    assert answer.status_code == 400


def test_a_digit_string_of_a_megabyte(target: Target) -> None:
    """400: numbers of any length are JSON, and expensive to read."""
    image = an_image()
    text = json.dumps([metadata(image, "p/1")]).replace(
        '"vr": "OW"', '"x": ' + "9" * 1_000_000 + ', "vr": "OW"'
    )
    answer = post(target, part(text.encode(), DICOM_JSON) + END, multipart(DICOM_JSON))
    assert answer.status_code == 400


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
def test_bulk_data_at_an_internal_address(target: Target, scheme: str) -> None:
    """400, and nobody has been asked for it."""
    image = an_image()
    with socket.create_server(("127.0.0.1", 0)) as internal:
        internal.settimeout(0.5)
        address = f"{scheme}://127.0.0.1:{internal.getsockname()[1]}/{CANARY}"
        body = part(json.dumps([metadata(image, address)]).encode(), DICOM_JSON) + END
        assert post(target, body, multipart(DICOM_JSON)).status_code == 400
        with pytest.raises(TimeoutError):
            internal.accept()
    assert not target.has(image.SOPInstanceUID)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "/etc/passwd", "../../../etc/passwd", "data:,x"])
def test_bulk_data_in_a_file(target: Target, address: str) -> None:
    """400: a BulkDataURI names a part of the same request, or nothing."""
    body = part(json.dumps([metadata(an_image(), address)]).encode(), DICOM_JSON) + END
    assert post(target, body, multipart(DICOM_JSON)).status_code == 400


# --- Addresses and parameters ---


@pytest.fixture(scope="module")
def stored(target: Target) -> str:
    """The address of an instance."""
    image = an_image()
    assert target.store(image).status_code == 200
    series = f"{STUDIES}/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}"
    return f"{series}/instances/{image.SOPInstanceUID}"


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/dicom-web/%2e%2e/health/live", 404),
        ("/dicom-web/studies/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/dicom-web/studies/..%2f..%2fetc%2fpasswd", 404),
        ("/viewer/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/viewer/..\\..\\etc\\passwd", 404),
        ("/dicom-web/studies/1..3", 400),
        ("/dicom-web/studies/1.2%00.3", 400),
        ("/dicom-web/studies/%ff%fe", 400),
        ("/dicom-web/studies/" + "1" * 65, 400),
        ("/dicom-web/studies/1.2.3", 404),
        ("/dicom-web/CANARYBIRD", 404),
        ("/dicom-web/studies?limit=-1", 400),
        ("/dicom-web/studies?limit=CANARYBIRD", 400),
        ("/dicom-web/studies?limit=1&limit=2", 400),
        ("/dicom-web/studies?offset=99999999999", 400),
        ("/dicom-web/studies?CANARYBIRD=1", 400),
        ("/dicom-web/studies?PatientBirthDate=CANARYBIRD", 400),
        ("/dicom-web/studies?StudyInstanceUID=../../x", 400),
        ("/dicom-web/studies?after=CANARYBIRD", 400),
        ("/dicom-web/studies?" + "&".join(f"0010{n:04x}=1" for n in range(300)), 400),
    ],
    ids=lambda value: str(value)[:40],
)
def test_addresses_and_parameters(target: Target, address: str, status: int) -> None:
    """404 for what leads elsewhere or nowhere, 400 for what is malformed."""
    connection = http.client.HTTPConnection("127.0.0.1", target.archive.http_port, timeout=60)
    connection.request("GET", address, headers={"Authorization": f"Bearer {target.tokens['viewer']}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.status == status, text
    assert CANARY not in text
    connection.close()


@pytest.mark.unnoticed("queries like any other")
@pytest.mark.parametrize("name", ["' OR 1=1 --", "%", "[A-Z]*", "'); DROP TABLE study;--", "☃" * 20])
def test_keys_are_literal(target: Target, name: str) -> None:
    """SQL and other languages' wildcards mean themselves: nobody has such a name."""
    answer = target.ask("GET", STUDIES, params={"PatientName": name})
    assert (answer.status_code, answer.text) == (200, "[]")


@pytest.mark.parametrize(
    ("frame", "status"), [("999999", 404), ("0", 400), ("-1", 400), ("1,999999", 404), ("x", 400)]
)
def test_frames_that_are_not_there(target: Target, stored: str, frame: str, status: int) -> None:
    """404 beyond the last one, 400 for what is no frame number (PS3.18 section 10.4.1.1.6)."""
    assert target.get(f"{stored}/frames/{frame}").status_code == status


def test_a_hundred_thousand_frames(target: Target, stored: str) -> None:
    """The same frame over and over, as many times as fit into an address: bounded, or refused."""
    answer = target.get(f"{stored}/frames/{','.join('1' * 30_000)}", Accept="*/*")
    assert answer.status_code in (400, 413, 414, 431)


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=99999999-",
        "bytes=-0",
        "bytes=99999999-99999999999999999999",
        "bytes=2-1",
        "bytes=x",
        "bytes=",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_a_bad_range(target: Target, stored: str, asked: str) -> None:
    """416 with the length (RFC 9110 section 15.5.17)."""
    answer = target.get(stored, Accept=f"{DICOM}; transfer-syntax=*", Range=asked)
    assert answer.status_code == 416
    assert answer.headers["Content-Range"].startswith("bytes */")


@pytest.mark.unnoticed("RFC 9110 has it ignored")
@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=" + ",".join(["0-1"] * 2000), "bytes=0-0,-1"])
def test_a_range_that_is_ignored(target: Target, stored: str, asked: str) -> None:
    """Of another unit, or several at once (RFC 9110 section 14.2): the whole, once."""
    whole = target.get(stored, Accept=f"{DICOM}; transfer-syntax=*")
    answer = target.get(stored, Accept=f"{DICOM}; transfer-syntax=*", Range=asked)
    assert (answer.status_code, answer.content) == (200, whole.content)


@pytest.mark.parametrize(
    "wanted", ["video/mp4", "x" * 5000, ", ".join(["a/b"] * 65), "image/png;q=7", 'a/b;c="', "\xff/x"]
)
def test_what_cannot_be_given(target: Target, stored: str, wanted: str) -> None:
    """406 for a type that is not to be had and for an Accept header that is none."""
    answer = target.get(f"{stored}/rendered", Accept=wanted)
    assert answer.status_code == 406


@pytest.mark.parametrize(
    "query", ["viewport=99999,99999", "viewport=0,0", "viewport=-1,5", "window=1,nan,linear", "quality=1000",
              "window=1,2,CANARYBIRD", "viewport=1e9,1"],
)  # fmt: skip
def test_a_rendering_out_of_bounds(target: Target, stored: str, query: str) -> None:
    """400 (PS3.18 section 8.3.5), before a decoder is asked."""
    answer = target.get(f"{stored}/rendered?{query}", Accept="image/png")
    assert answer.status_code == 400, answer.headers
    assert CANARY not in answer.text


# --- The protocol itself ---

_CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 4", _CHUNKED),
        (_CHUNKED, "Content-Length: 4"),
        ("Content-Length: 4", "Content-Length: 5"),
        ("Content-Length: +4",),
        ("Content-Length: 4 4",),
        ("Content-Length: -1",),
        ("Content-Length: 0x4",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding:\x0bchunked",),
        ("X: a\r\n b",),
        ("X\x00: a",),
        ("CANARYBIRD",),
    ],
    ids=repr,
)
def test_a_head_that_two_servers_would_read_in_two_ways(target: Target, lines: tuple[str, ...]) -> None:
    """400 (RFC 9112 sections 5.1, 5.2 and 6.3; 501 for an unknown transfer coding), and the connection
    ends: no second request can hide behind it."""
    hidden = b"0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    answer = raw(target, head(target, *lines) + hidden)
    assert answer[9:12] in (b"400", b"501"), answer[:300]
    assert answer.count(b"HTTP/1.1") == 1
    assert CANARY.encode() not in answer


@pytest.mark.parametrize(
    "first",
    [
        "GET /CANARYBIRD HTTP/7.3",
        "PRI * HTTP/2.0",
        "GET  /CANARYBIRD  HTTP/1.1",
        "GET /CANARYBIRD",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03CANARYBIRD",
        "\x01\x00\x00\x00\x01\x00DICOM",
        "G\x00T / HTTP/1.1",
    ],
    ids=repr,
)
def test_a_request_line_that_is_none(target: Target, first: str) -> None:
    """400, or 505 for a version that is not served."""
    answer = raw(target, first.encode("latin-1") + b"\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer[9:12] in (b"400", b"505"), answer[:300]
    assert CANARY.encode() not in answer


def test_a_head_without_end(target: Target) -> None:
    """431 (RFC 6585)."""
    answer = raw(target, head(target)[:-2] + b"X: " + b"x" * 200_000)
    assert answer[9:12] in (b"400", b"431")


@pytest.mark.parametrize("size", [b"-1", b"0x10", b"5;" + b"x" * 100_000, b"zz"])
def test_chunks_that_are_none(target: Target, size: bytes) -> None:
    """400."""
    sent = head(target, _CHUNKED, f"Content-Type: {multipart()}") + size + b"\r\nhello\r\n0\r\n\r\n"
    answer = raw(target, sent)
    assert answer[9:12] == b"400", answer[:300]


@pytest.mark.slow
def test_a_slow_request(target: Target) -> None:
    """408 (RFC 9110 section 15.5.9) for half a head after ten seconds and for half a body after thirty."""
    half_head = socket.create_connection(("127.0.0.1", target.archive.http_port), timeout=90)
    half_head.sendall(head(target)[:60])
    half_body = socket.create_connection(("127.0.0.1", target.archive.http_port), timeout=90)
    half_body.sendall(head(target, f"Content-Type: {DICOM}", "Content-Length: 1000") + b"half")
    assert half_head.recv(4096).startswith(b"HTTP/1.1 408 ")
    assert half_body.recv(4096).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "CONNECT", "PROPFIND", "CANARYBIRD"])
def test_methods_that_are_not_served(target: Target, method: str) -> None:
    """405 with what is allowed (RFC 9110 section 15.5.6), or 400 for what is no method."""
    answer = target.ask(method, STUDIES)
    assert answer.status_code in (400, 405)
    assert CANARY not in answer.text
