"""Which file answers which address below /viewer."""

import gzip
from pathlib import Path

import pytest

from node.viewer.files import IMMUTABLE, PAGE_POLICY, REVALIDATE, STAMP, WORKER_POLICY, ViewerFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    viewer = tmp_path / "viewer"
    dist = viewer / "dist-0123456789ab"
    dist.mkdir(parents=True)
    (viewer / "index.html").write_text("<p>the page</p>")
    (viewer / "app-config.js").write_text("window.config = {};")
    (viewer / STAMP).write_text("1")
    runtime = '__webpack_require__.p = "/viewer/dist-0123456789ab/";'
    (dist / "app.bundle.aa.js").write_text(runtime)
    (dist / "decoder.bundle.bb.js").write_text(runtime)
    (dist / "decoder.bundle.bb.js.gz").write_bytes(gzip.compress(runtime.encode()))
    (dist / "codec.wasm").write_bytes(b"\0asm")
    (dist / "notes.unknown").write_text("no content type")
    (tmp_path / "secret.json").write_text("{}")
    return viewer


def test_the_root_is_the_page(folder: Path) -> None:
    for address in ("", "/"):
        found = ViewerFiles(folder).find(address)
        assert found is not None
        assert found.path == folder / "index.html"
        assert found.content_type == "text/html; charset=utf-8"
        assert found.cache_control == REVALIDATE
        assert found.size == len("<p>the page</p>")


@pytest.mark.parametrize("address", ["/viewer", "/viewer/dicomweb", "/segmentation", "/notfoundstudy"])
def test_an_address_inside_the_application_is_the_page(folder: Path, address: str) -> None:
    found = ViewerFiles(folder).find(address)
    assert found is not None and found.path.name == "index.html"


@pytest.mark.parametrize(
    "address",
    [
        "/missing.js",
        "/dist-0123456789ab/missing.wasm",
        "/stamp",
        "/dist-0123456789ab/notes.unknown",
        "/../secret.json",
        "/../secret",
        "/dist-0123456789ab/../index.html",
        "/..\\secret",
        "/index.html\0.js",
        "/.",
    ],
)
def test_what_is_not_served_is_not_found(folder: Path, address: str) -> None:
    assert ViewerFiles(folder).find(address) is None


def test_the_distribution_is_cached_for_ever_and_the_settings_are_not(folder: Path) -> None:
    files = ViewerFiles(folder)
    codec, settings = files.find("/dist-0123456789ab/codec.wasm"), files.find("/app-config.js")
    assert codec is not None and settings is not None
    assert (codec.content_type, codec.cache_control) == ("application/wasm", IMMUTABLE)
    assert (settings.content_type, settings.cache_control) == ("text/javascript; charset=utf-8", REVALIDATE)


def test_the_gzipped_neighbour_is_given_to_who_takes_it(folder: Path) -> None:
    files = ViewerFiles(folder)
    plain = files.find("/dist-0123456789ab/decoder.bundle.bb.js", accepts_gzip=False)
    packed = files.find("/dist-0123456789ab/decoder.bundle.bb.js", accepts_gzip=True)
    assert plain is not None and packed is not None
    assert (plain.encoding, packed.encoding) == (None, "gzip")
    assert gzip.decompress(packed.path.read_bytes()) == plain.path.read_bytes()
    assert packed.content_type == plain.content_type
    assert packed.etag != plain.etag
    page = files.find("/", accepts_gzip=True)
    assert page is not None and page.encoding is None, "no neighbour, so as it is"


def test_only_workers_may_evaluate_text(folder: Path) -> None:
    files = ViewerFiles(folder)
    for accepts_gzip in (False, True):
        worker = files.find("/dist-0123456789ab/decoder.bundle.bb.js", accepts_gzip)
        assert worker is not None and worker.content_security_policy == WORKER_POLICY
        for address in ("/", "/dist-0123456789ab/app.bundle.aa.js", "/app-config.js"):
            found = files.find(address, accepts_gzip)
            assert found is not None and found.content_security_policy == PAGE_POLICY
    assert "'unsafe-eval'" in WORKER_POLICY and "'unsafe-eval'" not in PAGE_POLICY


def test_an_unfinished_folder_is_refused(folder: Path) -> None:
    (folder / STAMP).unlink()
    with pytest.raises(FileNotFoundError, match=r"python -m node\.viewer\.prepare"):
        ViewerFiles(folder)
