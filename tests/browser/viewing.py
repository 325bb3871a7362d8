"""A window on the viewer: what a reader does in it, and what can be told from its pixels."""

from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Error, Page
from pydicom.dataset import Dataset

from tests.support import wait_until

SECONDS = 60
LOCAL_SCHEMES = ("blob:", "data:")

Grey = npt.NDArray[np.float64]


class Viewing:
    """One browser window. Everything that it asks for and complains about is kept."""

    def __init__(self, page: Page, base_url: str, screenshots: Path | None) -> None:
        self.page = page
        self.base_url = base_url
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._screenshots = screenshots
        page.set_default_timeout(SECONDS * 1000)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("console", lambda line: self._console(line.type, line.text))
        page.on("response", lambda answer: self._answer(answer.status, answer.url))
        page.on("requestfailed", lambda request: self._failed(request.url, request.failure))

    def _console(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(f"console: {text}")

    def _answer(self, status: int, url: str) -> None:
        if status >= 400:
            self.complaints.append(f"{status}: {url}")

    def _failed(self, url: str, failure: str | None) -> None:
        if failure != "net::ERR_ABORTED":  # the application itself gave the request up
            self.complaints.append(f"{failure}: {url}")

    @property
    def foreign(self) -> list[str]:
        """Addresses outside the archive that the window asked for, or tried to."""
        return [
            url
            for url in self.requests
            if not url.startswith(f"{self.base_url}/") and not url.startswith(LOCAL_SCHEMES)
        ]

    def open_list(self) -> None:
        """Go to the study list."""
        self.page.goto(f"{self.base_url}/viewer/")

    def open_study(self, study_uid: str) -> None:
        """Go straight to a study."""
        self.page.goto(f"{self.base_url}/viewer/viewer?StudyInstanceUIDs={study_uid}")

    def wait_for_position(self, number: int, count: int) -> None:
        """Wait until the viewport's corner says that slice `number` of `count` is shown."""
        corner = self.page.locator("[data-cy=viewport-overlay-bottom-right]")
        corner.get_by_text(f"({number}/{count})").first.wait_for()

    def scroll(self, slices: int) -> None:
        """Turn the mouse wheel over the image, a slice at a time, down for positive numbers."""
        self.page.locator("[data-cy=viewport-pane]").first.hover()
        for _ in range(abs(slices)):
            self.page.mouse.wheel(0, 100 if slices > 0 else -100)

    def pixels(self) -> Grey:
        """The viewport at a third of its size as grey values, 0 to 255, with the texts in its corners."""
        picture = self.page.locator("[data-cy=viewport-pane]").first.screenshot()
        return np.asarray(Image.open(BytesIO(picture)).convert("L").reduce(3), np.float64)

    def likeness(self, ds: Dataset) -> float:
        """How much the viewport looks like a slice: correlation, 1 for the same, about 0 for unrelated.

        The slice is windowed as it says itself and fitted into the viewport, whose margin is not known.
        """
        shown = self.pixels()
        slice_, height_mm, width_mm = windowed(ds)
        best = -1.0
        for margin in np.arange(0.86, 1.021, 0.01):
            scale = margin * min(shown.shape[0] / height_mm, shown.shape[1] / width_mm)
            height, width = round(height_mm * scale), round(width_mm * scale)
            resized = Image.fromarray(slice_).resize((width, height), Image.Resampling.BILINEAR)
            expected = np.asarray(resized, np.float64)
            rows, columns = min(height, shown.shape[0]), min(width, shown.shape[1])
            best = max(best, _correlation(*(_middle(grey, rows, columns) for grey in (shown, expected))))
        return best

    def wait_for_image(self, ds: Dataset, likeness: float = 0.97) -> None:
        """Wait until the viewport shows a slice, and nothing else."""
        seen = [0.0]

        def shown() -> bool:
            seen.append(self.likeness(ds))
            return seen[-1] >= likeness

        try:
            wait_until(shown, SECONDS, "image shown")
        except AssertionError:
            raise AssertionError(
                f"not the image expected: likeness {max(seen):.3f}; {self.complaints}"
            ) from None

    def screenshot(self, name: str) -> None:
        """Keep the window's picture under a name, if STELE_SCREENSHOTS names a folder."""
        if self._screenshots is None:
            return
        self._screenshots.mkdir(parents=True, exist_ok=True)
        try:
            self.page.screenshot(path=self._screenshots / f"{name}.png")
        except Error:  # the window is gone, and the test has said why
            return


def windowed(ds: Dataset) -> tuple[npt.NDArray[np.uint8], float, float]:
    """A slice as it is displayed (PS3.3 C.11.2.1.2), 0 to 255, with its height and width in mm."""
    values = ds.pixel_array.astype(np.float64) * float(ds.get("RescaleSlope", 1))
    values += float(ds.get("RescaleIntercept", 0))
    centre, width = float(ds.WindowCenter), float(ds.WindowWidth)
    grey = np.clip((values - (centre - width / 2)) / width, 0, 1) * 255
    row_mm, column_mm = (float(spacing) for spacing in ds.PixelSpacing)
    return grey.astype(np.uint8), ds.Rows * row_mm, ds.Columns * column_mm


def _middle(grey: Grey, rows: int, columns: int) -> Grey:
    top, left = (grey.shape[0] - rows) // 2, (grey.shape[1] - columns) // 2
    return grey[top : top + rows, left : left + columns]


def _correlation(one: Grey, other: Grey) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / norm if norm else 0.0
