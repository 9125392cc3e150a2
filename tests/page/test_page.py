"""Each view of the engineers' page in Chromium: what it shows, that its address says it all, and that anybody can use it."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Dialog, Page, expect

from tests.page.conftest import TOKEN, Line, Width
from tests.page.test_labeling import sign_in

VIEWS = ("/", "/verdicts", "/frames/1", "/scores", "/wafers", "/specs", "/label", "/label/1", "/rate", "/bundles")
SCREENS = (Width(1280), Width(1280, dark=True), Width(390), Width(390, dark=True))


@pytest.mark.parametrize("context", SCREENS, indirect=True, ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_anybody_can_use_every_view(page: Page, view: str) -> None:
    page.goto(view)
    expect(page.locator("h1")).to_be_visible()
    found = Axe().run(page).response["violations"]
    grave = [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in ("serious", "critical")]
    assert grave == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]


def test_axe_would_find_something(page: Page) -> None:
    page.goto("/")
    page.evaluate("document.querySelector('#main').insertAdjacentHTML('beforeend', '<img src=\"/static/umbra.svg\">')")
    assert "image-alt" in [v["id"] for v in Axe().run(page).response["violations"]]


def test_the_station_at_a_glance_and_verdicts_as_they_land(page: Page, line: Line) -> None:
    page.goto("/")
    expect(page.locator("#state .state")).to_have_text("Ready")
    expect(page.locator(".figures")).to_contain_text("Backlog")
    before = page.locator("#newest > tr").count()
    line.drop("landed", folder="LIVE/L9")
    expect(page.get_by_role("link", name="landed.tif")).to_be_visible()
    assert page.locator("#newest > tr").count() == before + 1
    expect(page.locator("#newest > tr").first).to_contain_text("PASS")


def test_the_filter_stands_in_the_address(page: Page, line: Line) -> None:
    page.goto("/verdicts")
    page.get_by_label("Verdict", exact=True).select_option("FAIL")
    expect(page).to_have_url(re.compile(r"verdict=FAIL"))
    rows = page.locator("#found tbody tr")
    expect(rows).to_have_count(2)
    for row in rows.all():
        expect(row).to_contain_text("FAIL")
    page.reload()
    expect(rows).to_have_count(2)
    expect(page.get_by_label("Verdict", exact=True)).to_have_value("FAIL")
    page.get_by_label("Product").fill("GOOD")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No verdicts.")).to_be_visible()
    page.go_back()
    expect(rows).to_have_count(2)
    with httpx.Client(base_url=line.url) as http:
        table = http.get(page.get_by_role("link", name="These as CSV").get_attribute("href") or "").text
    assert [line.split(",")[9] for line in table.splitlines()[1:]] == ["FAIL", "FAIL"]


def test_a_limit_is_moved_with_the_keys(page: Page, line: Line) -> None:
    with httpx.Client(base_url=line.url) as http:
        answer = http.get("/v1/whatif", params={"spec": 0.005, "product": "BAD"}).json()
    page.goto("/scores?product=BAD")
    slider = page.get_by_label("Limit on the score")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#spec-value")).to_have_text("0.005")
    told = page.locator("#limit .figures")
    expect(told).to_contain_text(f"0 → {answer['would']['PASS']}")
    expect(told).to_contain_text(f"2 → {answer['would']['FAIL']}")
    bars = page.locator("#limit svg rect.bar title").all_text_contents()
    assert sum(int(bar.split()[0]) for bar in bars) == 2


def test_yield_is_told_by_lot(page: Page) -> None:
    page.goto("/scores")
    page.get_by_role("link", name="L2", exact=True).click()
    expect(page.locator("#limit figcaption")).to_contain_text("of BAD, lot L2")
    bars = page.locator("#limit svg rect.bar title").all_text_contents()
    assert sum(int(bar.split()[0]) for bar in bars) == 2
    expect(page.get_by_role("row").filter(has_text="GOOD")).to_contain_text("100.0 %")
    expect(page.get_by_role("row").filter(has_text="BAD")).to_contain_text("0.0 %")


def test_a_frame_and_its_neighbours(page: Page, line: Line) -> None:
    with httpx.Client(base_url=line.url) as http:
        [middle] = http.get("/v1/verdicts?wafer=07&die=0,0").json()["verdicts"]
        whole = http.get(f"/v1/verdicts/{middle['seq']}").json()
    page.goto(f"/frames/{middle['frame_id']}")
    for picture in page.locator(".pictures img").all():
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    numbers = page.locator(".numbers")
    for value in (f"{whole['score']:.3f}", whole["bundle"], whole["engine"], whole["sha256"], f"{whole['level']:.2f}"):
        expect(numbers).to_contain_text(value)
    beside = page.locator(".neighbours a")
    expect(beside).to_have_count(9)
    assert beside.first.inner_text().startswith("-1, 1"), "y upwards, as on the map"
    beside.first.click()
    expect(page.locator("h1")).to_contain_text("W07_X-1_Y1.tif")


def test_a_wafer_by_die(page: Page) -> None:
    page.goto("/wafers")
    expect(page.locator("svg a")).to_have_count(9)
    page.get_by_role("link", name="die 1, -1: PASS").click()
    expect(page.locator("h1")).to_contain_text("W07_X1_Y-1.tif")
    page.goto("/wafers?product=NONE")
    expect(page.get_by_text("There is no such wafer.")).to_be_visible()


def test_a_limit_is_set_by_who_has_the_token(page: Page, line: Line) -> None:
    page.goto("/specs")
    expect(page.get_by_role("region", name="Limits in force")).to_contain_text("BAD")
    page.get_by_label("Product").fill("GOOD")
    page.get_by_label("FAIL above").fill("0.4")
    page.get_by_label("Your name").fill("Ada")
    with page.expect_response("/v1/specs") as refused:
        page.get_by_role("button", name="Set", exact=True).click()
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    assert refused.value.status == 401
    expect(page.locator(".said")).to_have_text("a bearer token is wanted")
    page.get_by_role("button", name="Set", exact=True).click()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    audit = page.get_by_role("region", name="All limits that were ever set")
    expect(audit).to_contain_text("Ada")
    expect(page.get_by_label("Your name")).to_have_value("Ada")
    with httpx.Client(base_url=line.url) as http:
        [newest, *_] = http.get("/v1/specs").json()
    assert (newest["product"], newest["spec"], newest["who"]) == ("GOOD", 0.4, "Ada")


def test_screening_is_paused_and_goes_on(page: Page, line: Line) -> None:
    page.goto("/")
    sign_in(page)
    page.get_by_text("Pause screening").click()
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Why", exact=True).fill("new light source")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#state")).to_contain_text("paused by Ada: new light source")
    page.get_by_text("Screening is paused").click()
    page.get_by_role("button", name="Go on", exact=True).click()
    line.drop("after_the_pause", folder="GOOD/L4")
    expect(page.get_by_role("row").filter(has_text="after_the_pause").first).to_be_visible()
    expect(page.locator("#state .ready")).to_be_visible()


def test_a_bundle_is_activated_and_rolled_back(page: Page, line: Line) -> None:
    page.goto("/bundles")
    sign_in(page)
    hand = page.get_by_role("region", name="Bundles at hand")
    expect(hand.get_by_role("row").filter(has_text="starter@")).to_contain_text("in use")
    page.get_by_label("Your name").first.fill("Ada")
    page.keyboard.press("Enter")  # no choice of a bundle
    asked: list[str] = []

    def sure(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept()

    page.on("dialog", sure)
    page.get_by_role("button", name="Activate other").click()
    in_use = page.locator("#in-use dd").first
    expect(in_use).to_contain_text("other@", timeout=60_000)
    line.drop("judged_by_other", folder="GOOD/L3")
    with httpx.Client(base_url=line.url) as http:
        [row] = http.get("/v1/verdicts?file=judged_by_other.tif").json()["verdicts"]
        assert http.post("/v1/bundles/rollback", json={"who": "x"}).status_code == 401
    assert row["bundle"].startswith("other@")
    page.get_by_role("button", name="Go back to the one before").click()
    expect(in_use).to_contain_text("starter@", timeout=60_000)
    assert len(asked) == 2, "each is asked for once more"
    expect(page.get_by_role("region", name="Active so far")).to_contain_text("Ada")
    line.drop("judged_by_starter", folder="GOOD/L3")  # what is ranked is what the newest bundle measured


def test_the_keyboard_alone_gets_everywhere(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    reached = []
    page.goto("/")
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert reached == ["Skip to content", "Umbra bay-3", "Station", "Verdicts", "Scores"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/verdicts$"))


@pytest.mark.parametrize(
    ("view", "status", "said"),
    [("/frames/99999", 404, "frame 99999: there is none"), ("/verdicts?verdict=MAYBE", 422, "verdict: Input should be"),
     ("/nowhere", 404, "Not Found")],
)  # fmt: skip
def test_what_cannot_be_shown_is_said_on_a_page(view: str, status: int, said: str, line: Line) -> None:
    with httpx.Client(base_url=line.url, headers={"Accept": "text/html"}) as http:
        answer = http.get(view)
    assert (answer.status_code, said in answer.text) == (status, True)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    with httpx.Client(base_url=line.url) as program:
        assert json.loads(program.get(view).text)["detail"]
