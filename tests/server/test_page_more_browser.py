"""The page in a real browser: heat, moments, the map, filters, and indexing a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import open_page, serving, wait_until
from colour_model import COLOURS, ColourModel, ColourPatches
from PIL import Image
from test_explain import Held, coloured_library

from mmembed.search.index import Index
from mmembed.server.app import create_app
from mmembed.server.indexing import Indexing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=20_000)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with Index.open(folder, ColourModel()) as index:
        index.add(folder)
        app = create_app(index, ColourModel(), media_roots=[folder])
        with serving(app) as address:
            yield address


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with open_page(browser, address) as page:
        yield page


def test_heat_shows_where_and_says_it(page: Page) -> None:
    page.goto("/?q=red&show=image")
    page.get_by_role("button", name="Photo corner.png").click()
    button = page.get_by_role("button", name="Show where")
    button.click()
    expect(page.locator("#heat-status")).to_contain_text("lower right")
    expect(button).to_have_attribute("aria-pressed", "true")
    red = "canvas => canvas.getContext('2d').getImageData(%s, 1, 1).data[0]"
    canvas = page.locator("canvas.heat")
    assert canvas.evaluate(red % "canvas.width - 5, canvas.height - 5") > 200
    assert canvas.evaluate(red % "5, 5") < 80
    button.click()
    expect(canvas).to_have_count(0)
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Photo green.png").click()
    expect(button).to_have_attribute("aria-pressed", "false")


def test_a_result_is_shown_in_its_folder(browser: Browser, folder: Path, page: Page) -> None:
    page.goto("/?q=red&show=image&open=1")
    expect(page.get_by_role("button", name="Only this folder")).to_be_visible()
    expect(page.get_by_role("button", name="Show in folder")).to_be_hidden()
    shown: list[Path] = []
    with Index.open(folder, ColourModel()) as index:
        app = create_app(index, ColourModel(), media_roots=[folder], show_folder=shown.append)
        with serving(app) as address, open_page(browser, address) as other:
            other.goto("/?q=red&show=image&open=1")
            other.get_by_role("button", name="Show in folder").click()
            expect(other.locator("#heat-status")).to_contain_text("open in the file manager")
    assert shown == [folder / "trip" / "corner.png"]


@pytest.mark.parametrize("result", ["Photo sky.png", "Page sky.pdf, page 1"])
def test_heat_of_late_interaction_lies_on_the_matched_patch(
    browser: Browser, tmp_path: Path, result: str
) -> None:
    sky = Image.new("RGB", (240, 320), COLOURS["blue"])
    sky.paste(COLOURS["red"], (160, 120, 200, 160))  # one of the patches, which are 6 by 8
    sky.save(tmp_path / "sky.png")
    sky.save(tmp_path / "sky.pdf")
    with Index.open(tmp_path, ColourPatches()) as index:
        index.add(tmp_path)
        app = create_app(index, ColourPatches(), media_roots=[tmp_path])
        with serving(app) as address, open_page(browser, address) as page:
            page.goto("/?q=red")
            page.get_by_role("button", name=result).click()
            page.get_by_role("button", name="Show where").click()
            expect(page.locator("#heat-status")).to_contain_text(re.compile(r"the right \((0.9|1)"))
            red = """canvas => [[4.5, 3.5], [2.5, 3.5], [4.5, 5.5], [0.5, 0.5]].map(([x, y]) =>
                canvas.getContext("2d").getImageData(
                    Math.round(x * canvas.width / 6), Math.round(y * canvas.height / 8), 1, 1
                ).data[0])"""
            matched, *others = page.locator("canvas.heat").evaluate(red)
            assert matched > 200
            assert max(others) < 80


def test_a_clip_opens_at_its_best_moment(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto("/?q=green&show=video&open=1")
    first = page.locator("#moments button").first
    expect(first).to_contain_text(re.compile(r"0:0[45]\.\d · 1\.00"))
    clip = page.locator("#stage video")
    wait_until(lambda: clip.evaluate("clip => clip.currentTime >= 4"))
    page.locator("#moments button").nth(2).click()
    wait_until(lambda: not clip.evaluate("clip => clip.seeking"))


def test_the_map_is_walked_by_keys_and_finds_similar(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Map").click()
    expect(page.locator("#map-plot circle")).to_have_count(3)
    assert "view=map" in page.url
    expect(page.locator("#results")).to_be_hidden()
    page.locator("#map-plot circle[tabindex='0']").focus()
    walked = set()
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
        walked.add(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert len(walked) > 1
    expect(page.locator("#map-preview")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#chip")).to_contain_text("more like this")
    expect(page.locator(".card")).to_have_count(2)
    assert "like=" in page.url
    assert "view=map" not in page.url


def test_results_stand_out_on_the_map(page: Page) -> None:
    page.goto("/?q=red&show=video&view=map")
    expect(page.locator("#map-plot circle.found")).to_have_count(1)
    expect(page.locator("#map-plot circle.found")).to_have_class(re.compile("video"))


def test_a_filter_is_typed_shared_and_taken_from_a_result(page: Page) -> None:
    page.goto("/?q=red")
    expect(page.locator(".card")).to_have_count(3)
    page.get_by_label("Filter", exact=True).fill('path like "*.png"')
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(2)
    page.reload()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("button", name="Photo corner.png").click()
    page.get_by_role("button", name="Only this folder").click()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_label("Filter", exact=True)).to_have_value('path like "*trip/*"')


def test_a_folder_is_indexed_watched_and_cancelled(browser: Browser, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(6):
        Image.new("RGB", (40, 30), (200, number, number)).save(root / f"{number}.png")
    (root / "broken.png").write_bytes(b"none")
    model = Held()
    with Index.open(root, model) as index:
        indexing = Indexing(index, [root])
        app = create_app(index, ColourModel(), media_roots=[root], indexing=indexing)
        with serving(app) as address, open_page(browser, address) as page:
            page.goto("/")
            page.get_by_role("button", name="Index a folder").click()
            page.get_by_role("button", name="Start").click()
            expect(page.get_by_role("progressbar")).to_be_visible()
            page.get_by_role("button", name="Cancel").click()
            model.go.set()
            status = page.locator("#indexing-status")
            expect(status).to_contain_text("Stopped in photos")
            page.get_by_role("button", name="Start").click()
            expect(status).to_contain_text("Done with photos")
            expect(status).to_contain_text("1 skipped")
            expect(page.locator("#indexing-skipped")).to_contain_text("broken.png")
            page.get_by_role("dialog").get_by_role("button", name="Close").click()
            expect(page.locator("#collection")).to_contain_text("6 photos")


@pytest.mark.parametrize(
    "path", ["/?view=map", "/?q=red&show=video&open=1", "/?q=red&filter=page+is+null"]
)
def test_the_new_parts_fit_a_small_phone(browser: Browser, address: str, path: str) -> None:
    size = {"width": 360, "height": 740}
    with open_page(browser, address, viewport=size, has_touch=True, is_mobile=True) as page:
        page.goto(path)
        shown = {"map": "#map-plot circle", "open": "#moments button", "filter": ".card"}
        place = next(place for part, place in shown.items() if part in path)
        expect(page.locator(place).first).to_be_visible()
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) <= 0
        if "open" not in path:
            expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
