"""`umbra report` of a station that screened: its file looked at in Chromium, with axe, in light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.appliance.test_cli import umbra
from tests.page.conftest import Line, Width


@pytest.fixture(scope="module")
def report(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    umbra("report", out, "--station", line.station.root)
    return out


@pytest.mark.parametrize("width", [Width(), Width(390), Width(dark=True)], ids=str)
def test_anybody_can_read_the_report_and_it_asks_for_nothing(chromium: Browser, report: Path, width: Width) -> None:
    context = chromium.new_context(
        viewport={"width": width.pixels, "height": 900}, color_scheme="dark" if width.dark else "light", offline=True
    )
    tab = context.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(report.as_uri())
    expect(tab.get_by_role("heading", level=1)).to_contain_text("report")
    found = Axe().run(tab).response["violations"]
    assert [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width.pixels
    pictures = tab.locator(".gallery img")
    assert pictures.count() >= 11
    assert pictures.evaluate_all("all => all.every(one => one.naturalWidth === 448)")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    context.close()
