"""The page in a real browser: asking, filtering, opening, keys, phones and the dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import open_page, serving, wait_until
from fastapi import FastAPI

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = pytest.mark.browser

# What a page does with a file that is dropped or pasted; a browser driver cannot drag one in.
_GIVE_FILE = """async ([kind, name]) => {
  const pixels = new OffscreenCanvas(32, 32);
  const context = pixels.getContext("2d");
  context.fillStyle = "rgb(40 60 220)";
  context.fillRect(0, 0, 32, 32);
  const file = new File([await pixels.convertToBlob()], name, {type: "image/png"});
  const data = new DataTransfer();
  data.items.add(file);
  const options = {bubbles: true, cancelable: true};
  if (kind === "paste") {
    document.body.dispatchEvent(new ClipboardEvent("paste", {...options, clipboardData: data}));
  } else {
    document.body.dispatchEvent(new DragEvent("dragover", {...options, dataTransfer: data}));
    document.body.dispatchEvent(new DragEvent("drop", {...options, dataTransfer: data}));
  }
}"""


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with serving(app) as address:
        yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with open_page(browser, address) as page:
        yield page


def ask(page: Page, words: str) -> None:
    page.get_by_role("searchbox").fill(words)
    with page.expect_response(lambda answer: "/api/search" in answer.url):
        page.keyboard.press("Enter")
    expect(page.locator("body:not(.busy) #status")).to_contain_text("result")


def names(page: Page) -> list[str]:
    return page.locator(".card .name").all_inner_texts()


def horizontal_overflow(page: Page) -> int:
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def test_words_find_photos_pages_clips_and_code(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    expect(page.locator("#collection")).to_have_text(
        "3 photos, 2 pages, 1 clip, 1 text, and code, embedded with colours"
    )
    ask(page, "red")
    found = names(page)
    assert set(found[:3]) == {"p0.png", "clip.mp4", "paper.pdf"}
    assert found[-1] == "colour/mix.py:12-14"
    first = page.locator(".card").first
    assert float(first.locator(".score").inner_text().split()[-1]) > 0.9
    expect(first.locator(".steps")).to_contain_text("fused")
    expect(page.locator(".card .badge", has_text="Page 2")).to_be_visible()
    for image in page.locator(".card img").all():
        image.scroll_into_view_if_needed()
        assert image.get_attribute("alt")
        wait_until(lambda image=image: image.evaluate("image => image.naturalWidth > 0"))
    assert "<b>not markup</b>" in page.locator(".face.code").inner_text()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_is_a_query(page: Page, way: str) -> None:
    page.goto("/")
    page.evaluate(_GIVE_FILE, [way, "sea.png"])
    expect(page.locator("#status")).to_contain_text("7 results")
    expect(page.locator("#chip")).to_contain_text("sea.png")
    assert set(names(page)[:2]) == {"p2.png", "paper.pdf"}
    ask(page, "red red red red")
    assert names(page)[0] in {"p0.png", "clip.mp4", "paper.pdf"}
    page.get_by_role("button", name="Remove the image").click()
    expect(page.locator("#chip")).to_be_hidden()


def test_an_image_can_be_chosen(page: Page, media_folder: Path) -> None:
    page.goto("/")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search by image").click()
    chooser.value.set_files(media_folder / "trip" / "p1.png")
    expect(page.locator("#status")).to_contain_text("result")
    assert set(names(page)[:2]) == {"p1.png", "note.txt"}


def test_a_file_that_is_no_image_is_refused_by_name(page: Page, media_folder: Path) -> None:
    page.goto("/")
    page.locator("#file").set_input_files(media_folder / "note.txt")
    expect(page.get_by_role("alert")).to_contain_text("note.txt")


def test_filters_live_in_the_address(page: Page) -> None:
    page.goto("/")
    ask(page, "red")
    page.get_by_role("button", name="Pages 2").click()
    expect(page.locator(".card")).to_have_count(2)
    assert page.url.endswith("?q=red&show=document")
    page.get_by_role("button", name="All 7").click()
    expect(page.locator(".card")).to_have_count(8)
    page.locator("#minimum").fill("0.9")
    expect(page.locator("#status")).to_contain_text("3 of 8 results at 0.90 or above")
    expect(page.locator(".card")).to_have_count(3)
    page.reload()
    expect(page.locator(".card")).to_have_count(3)
    expect(page.get_by_role("searchbox")).to_have_value("red")
    page.go_back()
    expect(page.locator(".card")).to_have_count(2)
    page.go_back()
    page.go_back()
    expect(page.locator("#welcome")).to_be_visible()


def test_a_result_opens_in_full(page: Page) -> None:
    page.goto("/")
    ask(page, "red")
    page.get_by_role("button", name="Page paper.pdf, page 2").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=2)).to_have_text("paper.pdf, page 2")
    expect(dialog.locator("#detail-scores")).to_contain_text("similarity")
    preview = dialog.locator("#stage img")
    wait_until(lambda: preview.evaluate("image => image.naturalWidth > 480"))
    original = dialog.get_by_role("link", name="Open file")
    assert (original.get_attribute("href") or "").endswith("#page=2")
    opened = page.url
    assert "open=" in opened
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).not_to_have_url(re.compile("open="))
    page.goto(opened)
    expect(dialog.get_by_role("heading", level=2)).to_have_text("paper.pdf, page 2")


def test_a_clip_plays(page: Page) -> None:
    page.goto("/?q=red&show=video")
    card = page.locator(".card").first
    card.hover()
    expect(card.locator("video.playing")).to_be_attached()
    card.click()
    clip = page.locator("#stage video")
    wait_until(lambda: clip.evaluate("clip => clip.currentTime > 0"))


def test_a_clip_keeps_still_where_motion_is_unwanted(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto("/?q=red&show=video")
    card = page.locator(".card").first
    card.hover()
    card.click()
    expect(page.locator("#stage video")).to_be_visible()
    assert card.locator("video").count() == 0
    assert page.evaluate("document.querySelector('#stage video').paused")


def test_find_similar(page: Page) -> None:
    page.goto("/?q=green&show=image")
    page.locator(".card").first.click()
    page.get_by_role("button", name="Find similar").click()
    expect(page.locator("#chip")).to_contain_text("more like this")
    expect(page.locator(".card")).to_have_count(2)
    assert "p1.png" not in names(page)


def test_keys_walk_the_grid(page: Page) -> None:
    page.goto("/")
    ask(page, "red")
    cards = page.locator(".card")
    page.keyboard.press("ArrowDown")
    expect(cards.nth(0)).to_be_focused()
    assert cards.nth(0).evaluate("card => getComputedStyle(card).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    below = cards.evaluate_all("cards => cards.indexOf(document.activeElement)")
    tops = [card.bounding_box() for card in (cards.nth(1), cards.nth(below))]
    assert tops[0] is not None
    assert tops[1] is not None
    assert tops[1]["y"] > tops[0]["y"]
    page.keyboard.press("ArrowUp")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(cards.nth(2)).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()


@pytest.mark.parametrize("path", ["/", "/?q=red", "/?q=red&open=1", "/?q=red&show=code&open=1"])
def test_nothing_is_wider_than_a_small_phone(page: Page, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(path)
    if "q=" in path:
        expect(page.locator(".card").first).to_be_visible(visible="open" not in path or None)
    assert horizontal_overflow(page) <= 0
    for control in page.get_by_role("button").all():
        box = control.bounding_box()
        if box is not None and "tabs" not in (control.locator("..").get_attribute("class") or ""):
            assert box["x"] + box["width"] <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto("/?q=red")
    places = ("body", ".card .name", ".card .steps", ".card .score", "#status", ".tabs button")
    colours = [
        page.locator(place).first.evaluate("element => getComputedStyle(element).color")
        for place in places
    ]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.1) == (scheme == "dark")
    for colour in colours:
        assert contrast(colour, ground) >= 4.5, colour


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``, as WCAG 2 defines it."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
