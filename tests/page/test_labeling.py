"""The label queue in Chromium: from the gallery to a label with boxes, by mouse and by keys, and back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import TOKEN, Line

BOX = (0.25, 0.25, 0.75, 0.5)  # of the picture
WIDTH, HEIGHT = 360, 300  # of the frames


@pytest.fixture
def http(line: Line) -> Any:
    with httpx.Client(base_url=line.url) as client:
        yield client


def sign_in(page: Page) -> None:
    page.get_by_role("button", name="Sign in to write").click()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def draw(page: Page) -> None:
    """A box, by mouse."""
    area = page.locator("#drawing").bounding_box()
    assert area is not None
    x = [area["x"] + share * area["width"] for share in BOX[::2]]
    y = [area["y"] + share * area["height"] for share in BOX[1::2]]
    page.mouse.move(x[0], y[0])
    page.mouse.down()
    page.mouse.move(x[1], y[1], steps=5)
    page.mouse.up()


def labels_of(http: httpx.Client, frame_id: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http.get("/v1/labels", params={"frame_id": frame_id}).json()
    return found


def frame_shown(page: Page) -> int:
    return int(page.locator("#label-form").get_attribute("data-frame") or 0)


def test_the_queue_is_the_ranking(page: Page, http: httpx.Client) -> None:
    orders = {}
    page.goto("/label")
    for metric in ("rois", "m_alpha"):
        orders[metric] = [entry["frame"] for entry in http.get(f"/v1/rank?metric={metric}&count=24").json()]
        names = page.locator(".gallery li a").all_inner_texts()
        assert [name.strip() for name in names] == orders[metric]
        page.get_by_label("Most first by").select_option("M alpha")
        page.get_by_role("button", name="Show").click()
    assert orders["rois"] != orders["m_alpha"]


def test_a_frame_is_labeled_by_mouse_and_the_next_comes(page: Page, http: httpx.Client) -> None:
    ranked = http.get("/v1/rank?metric=rois&count=2").json()
    page.goto("/label")
    sign_in(page)
    page.get_by_role("link", name="Label them one by one").click()
    first = frame_shown(page)
    assert first == ranked[0]["frame_id"]
    page.get_by_label("Spot").check()
    page.get_by_label("Level").fill("6.5")
    draw(page)
    page.get_by_label("Class of box 1").fill("ring")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Save, next").click()
    page.wait_for_url(f"**/label/{ranked[1]['frame_id']}?**")
    [label] = labels_of(http, first)
    assert (label["class"], label["level"], label["box_classes"], label["who"]) == ("Spot", 6.5, ["ring"], "Ada")
    [found] = label["boxes"]
    wanted = [BOX[0] * WIDTH, BOX[1] * HEIGHT, BOX[2] * WIDTH, BOX[3] * HEIGHT]
    assert all(abs(value - expected) <= 2 for value, expected in zip(found, wanted, strict=True)), (
        "in the frame's pixels"
    )

    page.get_by_role("button", name="Take back the last").click()
    page.wait_for_url(f"**/label/{first}?**")
    assert labels_of(http, first) == []
    expect(page.get_by_role("button", name="Take back the last")).to_be_disabled()


def test_a_frame_is_labeled_by_keys_alone(page: Page, http: httpx.Client) -> None:
    page.goto("/label")
    sign_in(page)
    page.goto("/label/next?product=GOOD")
    expect(page.locator("#picture")).to_be_visible()
    frame = frame_shown(page)
    page.get_by_label("Your name").fill("Bo")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("3")
    expect(page.get_by_label("Diagonal")).to_be_checked()
    page.keyboard.press("b")
    expect(page.locator(".box")).to_be_focused()
    before = page.locator(".box").get_attribute("aria-label")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert page.locator(".box").get_attribute("aria-label") != before
    page.keyboard.press("h")
    expect(page.get_by_role("button", name="Heat")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/label/" in url and f"/label/{frame}" not in url)
    [label] = labels_of(http, frame)
    assert (label["class"], len(label["boxes"]), label["who"]) == ("Diagonal", 1, "Bo")
    x0, y0, x1, y1 = label["boxes"][0]
    assert (round(x1 - x0), y1 - y0) == (72, 63), "moved, and a hundredth of the frame higher"
    page.keyboard.press("u")
    page.wait_for_url(f"**/label/{frame}?**")
    assert labels_of(http, frame) == []


def test_what_is_skipped_stays_in_the_queue(page: Page, http: httpx.Client) -> None:
    page.goto("/label/next?product=GOOD")
    first = frame_shown(page)
    page.keyboard.press("s")
    page.wait_for_url("**offset=1**")
    assert frame_shown(page) != first
    ranked = http.get("/v1/rank?metric=rois&count=24&product=GOOD").json()
    assert first in [entry["frame_id"] for entry in ranked]


def test_a_label_that_says_nothing_is_refused_with_why(page: Page) -> None:
    page.goto("/label")
    sign_in(page)
    page.goto("/label/1")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Save, next").click()
    expect(page.locator(".said").last).to_contain_text("says nothing")


def test_boxes_are_taken_undone_and_removed(page: Page) -> None:
    page.goto("/label/1")
    page.locator("h1").click()
    for _ in range(2):
        page.keyboard.press("b")
    expect(page.locator(".box")).to_have_count(2)
    page.keyboard.press("Delete")
    expect(page.locator(".box")).to_have_count(1)
    page.keyboard.press("z")
    expect(page.locator(".box")).to_have_count(0)
    page.keyboard.press("b")
    page.get_by_role("button", name="Remove").click()
    expect(page.locator(".box")).to_have_count(0)


def test_enter_on_a_choice_saves_once_and_boxes_that_are_removed_are_gone(page: Page, http: httpx.Client) -> None:
    page.goto("/label")
    sign_in(page)
    page.goto("/label/2")
    page.get_by_label("Your name").fill("Ada")
    draw(page)
    page.get_by_label("Spot").check()
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/label/2" not in url)
    assert len(labels_of(http, 2)) == 1
    page.goto("/label/2")
    page.get_by_label("Your name").fill("Bo")
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Save, next").click()
    page.wait_for_url(lambda url: "/label/2" not in url)
    page.goto("/label/2")
    expect(page.locator("#picture")).to_be_visible()
    expect(page.locator(".box")).to_have_count(0)
    for label in labels_of(http, 2):
        http.post(
            f"/v1/labels/{label['id']}/retraction", json={"who": "x"}, headers={"Authorization": f"Bearer {TOKEN}"}
        )
