"""Chromium, and an archive with the viewer in it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from node.viewer.prepare import prepare
from tests.archive import Archive, running_archive
from tests.browser.viewing import Viewing
from tests.support import require

VIEWER = Path(__file__).parents[2] / ".cache" / "viewer"
# WebGL in software, and nothing that a browser does on its own account.
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An empty archive of its own for each module."""
    require("npm", "chromium")
    prepare(VIEWER)
    data = tmp_path_factory.mktemp("archive")
    with running_archive(data, environment={"STELE_VIEWER__PATH": str(VIEWER)}) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, which makes a new profile each time."""
    require("chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def viewing(archive: Archive, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Viewing]:
    """A window on the archive's viewer, in a profile that nobody has used."""
    folder = os.environ.get("STELE_SCREENSHOTS")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    window = Viewing(context.new_page(), archive.base_url, Path(folder) if folder else None)
    yield window
    window.screenshot(f"{request.node.name}-end")
    context.close()
