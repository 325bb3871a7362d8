"""A campaign's report in Chromium: the answer is on the first screen, and nothing runs or is fetched."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from chaos import report
from tests.unit.chaos.campaigns import whole

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SIZE = {"width": 1280, "height": 800}
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


def test_the_answer_is_on_the_first_screen(browser: Browser, tmp_path: Path) -> None:
    folder = whole(tmp_path, victim=HOSTILE, recovery=7.0)
    told = report.write(folder)
    page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: complaints.append(line.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    address = (tmp_path / report.PAGE).as_uri()
    page.goto(address)
    for text in (told.verdict, "osd-killed-1", "All scenarios, the worst first"):
        box = page.get_by_text(text, exact=text == told.verdict).first.bounding_box()
        assert box is not None and box["y"] + box["height"] < SIZE["height"], text
    assert page.locator("section svg").count() == 3
    assert page.locator("section svg rect.stored").first.bounding_box() is not None
    # The late one comes first, its number in the colour of what is bad
    late = page.locator("table tr").nth(1)
    assert "osd-killed" in late.inner_text()
    colour = late.locator("td").nth(2).evaluate("cell => getComputedStyle(cell).color")
    assert colour == "rgb(179, 32, 44)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing is cut off
    if shots := os.environ.get("STELE_SCREENSHOTS"):
        page.screenshot(path=Path(shots) / "chaos-report.png")
    assert page.title() != "taken"
    assert (asked, complaints) == ([address], [])
    page.close()
