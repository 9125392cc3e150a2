"""`make page-pictures`: the views of a station as docs/page.md shows them, taken in Chromium; needs a running API.

make page-pictures URL=http://127.0.0.1:8765
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, sync_playwright

from tests.page.conftest import CHROMIUM

VIEWS = {"station": "/", "frame": "/frames/15", "scores": "/scores", "wafers": "/wafers", "queue": "/label",
         "bench": "/label/next?metric=rois", "rated": "/rate/1/result"}  # fmt: skip
LARGEST = 800  # pixels across
QUALITY = [cv2.IMWRITE_WEBP_QUALITY, 45]
NARROW = ("station",)  # as a phone shows them, dark


def take(browser: Browser, url: str, view: str, path: Path, *, narrow: bool) -> None:
    """One picture, small: it lies in git."""
    context = browser.new_context(
        viewport={"width": 390 if narrow else 1280, "height": 844 if narrow else 900},
        color_scheme="dark" if narrow else "light",
    )
    page = context.new_page()
    page.goto(url + view)
    page.wait_for_timeout(800)  # for the pictures in it
    shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert shot is not None
    scale = min(1.0, LARGEST / shot.shape[1])
    cv2.imwrite(str(path), cv2.resize(shot, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), QUALITY)
    context.close()


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if not os.geteuid() else []
        )
        for name, view in VIEWS.items():
            take(browser, url, view, folder / f"page-{name}.webp", narrow=False)
            if name in NARROW:
                take(browser, url, view, folder / f"page-{name}-narrow.webp", narrow=True)


if __name__ == "__main__":
    main()
