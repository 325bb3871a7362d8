"""Making the viewer's folder: the rewriting on small files, and the whole with npm."""

import gzip
import re
import shutil
from pathlib import Path

import pytest

from node.viewer import prepare
from node.viewer.files import STAMP, ViewerFiles
from tests.support import require


def write_dist(dist: Path) -> None:
    """The few lines of a distribution that the rewriting looks at."""
    dist.mkdir()
    (dist / "app.bundle.aa.js").write_text(f"{prepare.PUBLIC_PATH}\n{prepare.MICROSCOPY_MODE}\nrest()")
    for number in range(prepare.PUBLIC_PATH_COUNT - 1):
        (dist / f"{number}.bundle.js").write_text(prepare.PUBLIC_PATH)
    (dist / "app.bundle.css").write_text("a{src:url(/font.woff2)} b{src:url(//x/y)} c{src:url(data:,)}")


def test_everything_loads_from_the_new_address(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    write_dist(dist)
    prepare.rewrite(dist, "/viewer/dist-1")
    main = (dist / "app.bundle.aa.js").read_text()
    assert '__webpack_require__.p = "/viewer/dist-1/";' in main
    assert "microscopy" not in main and "rest()" in main
    assert '"/viewer/dist-1/"' in (dist / "0.bundle.js").read_text()
    css = (dist / "app.bundle.css").read_text()
    assert css == "a{src:url(/viewer/dist-1/font.woff2)} b{src:url(//x/y)} c{src:url(data:,)}"


def test_a_distribution_of_another_shape_is_refused(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    write_dist(dist)
    (dist / "0.bundle.js").unlink()
    with pytest.raises(prepare.PreparationFailed, match="7 public paths"):
        prepare.rewrite(dist, "/viewer/dist-1")


def test_compressing_leaves_out_what_does_not_shrink(tmp_path: Path) -> None:
    (tmp_path / "long.js").write_text("x" * 1000)
    (tmp_path / "short.js").write_text("x")
    (tmp_path / "picture.png").write_bytes(b"x" * 1000)
    prepare.compress(tmp_path)
    assert gzip.decompress((tmp_path / "long.js.gz").read_bytes()) == b"x" * 1000
    assert sorted(path.name for path in tmp_path.glob("*.gz")) == ["long.js.gz"]


def test_a_failure_leaves_the_former_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    former = tmp_path / "viewer"
    former.mkdir()
    (former / STAMP).write_text("an older one")
    monkeypatch.setenv("PATH", "")
    assert prepare.main([str(former)]) == 1
    assert capsys.readouterr().err == "viewer: npm is missing (Debian package npm)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["viewer"]
    assert (former / STAMP).read_text() == "an older one"


def test_the_stamp_follows_every_source(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(prepare.HERE, sources, ignore=shutil.ignore_patterns("__pycache__"))
    seen = {prepare.stamp_of(sources)}
    assert seen == {prepare.stamp_of()}
    for name in ("package-lock.json", "prepare.py", "static/app-config.js"):
        with (sources / name).open("a") as file:
            file.write("\n")
        seen.add(prepare.stamp_of(sources))
    assert len(seen) == 4


@pytest.mark.slow
def test_the_pinned_package_becomes_a_complete_viewer(tmp_path: Path) -> None:
    require("npm", "node")
    folder = tmp_path / "viewer"
    assert prepare.prepare(folder)
    assert not prepare.prepare(folder), "a second run has nothing to do"
    assert [path.name for path in tmp_path.iterdir()] == ["viewer"], "nothing is left beside it"

    files = ViewerFiles(folder)
    page = files.find("/")
    assert page is not None
    html = page.path.read_text()
    addresses = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(addresses) == 6
    for address in addresses:
        assert address.startswith("/viewer/")
        assert files.find(address.removeprefix("/viewer")) is not None, address
    assert "<script>" not in html, "inline scripts are forbidden by the policy"

    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith(".map") or "/ort/" in name]
    assert sum((folder / name).stat().st_size for name in names if not name.endswith(".gz")) < 60e6
    main = next(folder.glob("dist-*/app.bundle.*.js")).read_text()
    digests = set(re.findall(r'\d+: ?"([0-9a-f]{16})"', main))
    bundles = {path.name.split(".")[2] for path in folder.glob("dist-*/*.bundle.*.js")}
    assert len(digests) > 30 and digests <= bundles, "the page names a bundle that is not there"
