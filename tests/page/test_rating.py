"""A blind rating session in Chromium: begun, rated by keys by two people, and held against the levels."""

from __future__ import annotations

import httpx
from playwright.sync_api import Page, expect

from tests.page.conftest import Line
from tests.page.test_labeling import sign_in


def rate_all(page: Page, scores: list[int]) -> list[int]:
    """Rate what comes, by keys; the frames in the order in which they came."""
    seen = []
    for number, score in enumerate(scores):
        expect(page.get_by_text(f"{number} of {len(scores)} rated")).to_be_visible()
        page.wait_for_load_state()
        seen.append(int(page.locator("#rate-form").get_attribute("data-frame") or 0))
        page.keyboard.press("+" if score == 10 else str(score))
    expect(page.get_by_text("Thank you.")).to_be_visible()
    return seen


def test_two_people_rate_blindly_and_levels_stand_against_them(page: Page, line: Line) -> None:
    page.goto("/rate")
    sign_in(page)
    page.get_by_label("Name of the session").fill("Autumn")
    page.get_by_label("Frames, spread over the levels").fill("6")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Begin").click()
    page.get_by_role("link", name="Autumn", exact=True).click()
    page.get_by_label("Your name").fill("Ada")
    page.keyboard.press("Enter")
    expect(page.locator("img.rated")).to_be_visible()
    shown = page.locator("main").inner_text()
    for told in ("PASS", "FAIL", "evel", ".tif"):
        assert told not in shown, "a rater sees nothing but the picture"
    first = rate_all(page, [0, 1, 2, 3, 4, 10])

    page.goto("/rate")
    page.get_by_role("link", name="Autumn", exact=True).click()
    page.get_by_label("Your name").fill("Bo")
    page.keyboard.press("Enter")
    expect(page.get_by_text("0 of 6 rated")).to_be_visible()
    page.get_by_role("button", name="5", exact=True).click()
    expect(page.get_by_text("1 of 6 rated")).to_be_visible()
    page.wait_for_load_state()
    page.keyboard.press("u")
    expect(page.locator("#rate-form")).to_have_attribute("data-before", "")
    second = [int(page.locator("#rate-form").get_attribute("data-frame") or 0)]
    page.wait_for_load_state()
    page.keyboard.press("9")
    expect(page.locator("#rate-form")).to_have_attribute("data-before", str(second[0]))
    for number in range(1, 6):
        expect(page.get_by_text(f"{number} of 6 rated")).to_be_visible()
        page.wait_for_load_state()
        second.append(int(page.locator("#rate-form").get_attribute("data-frame") or 0))
        page.keyboard.press("1")
    expect(page.get_by_text("Thank you.")).to_be_visible()
    assert sorted(first) == sorted(second)
    assert first != second, "each in an order of their own"

    page.get_by_role("link", name="level against opinion").click()
    with httpx.Client(base_url=line.url) as http:
        [session] = http.get("/v1/ratings/sessions").json()
        told = http.get(f"/v1/ratings/sessions/{session['id']}").json()
    assert (session["frames"], session["raters"], session["ratings"]) == (6, 2, 12)
    scores = {(row["rater"], row["frame_id"]): row["score"] for row in told["scores"]}
    assert [scores["Ada", frame] for frame in first] == [0, 1, 2, 3, 4, 10]
    assert scores["Bo", second[0]] == 9, "the last score counts"
    expect(page.get_by_role("region", name="Mean opinion scores by level").locator("tbody tr")).to_have_count(
        len(told["result"]["mos_by_level"])
    )
    page.set_viewport_size({"width": 390, "height": 900})
    for view in ("/rate", f"/rate/{session['id']}/result"):
        page.goto(view)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
