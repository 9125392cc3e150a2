"""A real station with its daemon and API, and a real Chromium that looks at it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from appliance.formats import write_frame
from appliance.station import Station
from appliance.verdict_log import VerdictLog
from engines import Bundle
from tests.appliance.running import Daemon, outbox, wait_until
from tests.conftest import dark

TOKEN = "the station's token"  # noqa: S105
REFUSED = re.compile(r"status of (401|422)")  # Chromium tells of these; tests of refusals look at what the page says
SIGMA = 4.0  # of the noise of `dark`
CHROMIUM = shutil.which("chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM is None:
        for item in items:
            if Path(item.path).is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.skip(reason="NO CHROMIUM HERE: the engineers' page was not looked at"))


@dataclass
class Line:
    """A station that screens while its page is looked at."""

    station: Station
    url: str
    dropped: int = 0
    seen: list[str] = field(default_factory=list)

    def drop(self, name: str, *, folder: str, spot: float = 0.0) -> None:
        """A frame, judged.

        Args:
            name: of the file, without its suffix.
            folder: product and lot.
            spot: height of a bright blemish, in sigma of the noise.
        """
        frame = dark(seed=self.dropped).astype(np.float64)
        y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
        frame += spot * SIGMA * np.exp(-((x - 200) ** 2 + (y - 120) ** 2) / (2 * 18.0**2))
        made = write_frame(
            self.station.root / "scratch", name, frame.round().astype(np.uint16), bits=8, format_name="tiff"
        )
        target = self.station.inbox / folder / made.name
        target.parent.mkdir(parents=True, exist_ok=True)
        made.rename(target)
        self.dropped += 1
        wait_until(lambda: len(outbox(self.station)) == self.dropped, f"{name} is judged")


@pytest.fixture(scope="package")
def line(tmp_path_factory: pytest.TempPathFactory, starter: Bundle) -> Iterator[Line]:
    """Eleven frames: nine dies of a wafer that pass, and two with a blemish."""
    root = tmp_path_factory.mktemp("page") / "bay-3"
    root.mkdir()
    token = hashlib.sha256(TOKEN.encode()).hexdigest()
    (root / "umbra.toml").write_text(
        f'[api]\nport = 0\ntoken_sha256 = "{token}"\n[watch]\nsettle_s = 0.05\nrescan_s = 0.2\n[disk]\nlow_bytes = 0\n'
    )
    station = Station.open(root, create=True)
    brought = station.bundles / "other"
    shutil.copytree(starter.folder, brought)
    toml = brought / "bundle.toml"
    toml.write_text(toml.read_text().replace('name = "starter"', 'name = "other"'))
    with closing(VerdictLog(station.database)) as log:
        log.set_spec("BAD", 0.1, who="jo", note="as the customer wants it")
    running = Daemon(station)
    running.wait_ready()
    made = Line(station, running.url)
    for x in (-1, 0, 1):
        for y in (-1, 0, 1):
            made.drop(f"W07_X{x}_Y{y}", folder="GOOD/L1")
    for number in range(2):
        made.drop(f"s{number}", folder="BAD/L2", spot=4.0)
    yield made
    assert running.stop() == 0


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@dataclass(frozen=True)
class Width:
    """How a screen is: pixels across, and whether its owner likes it dark."""

    pixels: int = 1280
    dark: bool = False


@pytest.fixture
def context(chromium: Browser, line: Line, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    width: Width = getattr(request, "param", Width())
    made = chromium.new_context(
        base_url=line.url,
        viewport={"width": width.pixels, "height": 900},
        color_scheme="dark" if width.dark else "light",
    )
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, line: Line) -> Iterator[Page]:
    """A tab in which nothing may go wrong, and from which nothing may be asked elsewhere."""
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on(
        "console",
        lambda said: wrong.append(said.text) if said.type == "error" and not REFUSED.search(said.text) else None,
    )
    tab.on("request", lambda asked: None if asked.url.startswith(line.url) else wrong.append(f"asked {asked.url}"))
    yield tab
    assert wrong == []
