"""axe-core's rules of accessibility over states of the page, light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import open_page, serving, wait_until
from colour_model import ColourModel, FakeCode
from test_explain import coloured_library

from mmembed.search.index import Index
from mmembed.server.app import create_app
from mmembed.server.indexing import Indexing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)
expect = playwright.expect
expect.set_options(timeout=60_000)

pytestmark = pytest.mark.browser

# Every state, and what is seen once it is there.
STATES = {
    "/": "#collection",
    "/?q=red": ".card",
    "/?q=red&filter=page+%3E+999": "#filter",
    "/?q=red&show=image&open=1": "#stage",
    "/?q=green&show=video&open=1": "#moments button",
    "/?view=map": "#map-plot circle",
}


# Results fade while another search runs; what is judged is the page once it has come to rest.
AT_REST = "!document.querySelector('.busy') && !document.getAnimations().length"


def violations(page: Page) -> list[str]:
    wait_until(lambda: page.evaluate(AT_REST))
    return [
        f"{found['impact']}: {found['id']}: {node['html'][:120]}"
        for found in axe.Axe().run(page).response["violations"]
        for node in found["nodes"]
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    folder, found = coloured_library(tmp_path), {}
    with Index.open(folder, ColourModel()) as index:
        index.add(folder)
        app = create_app(
            index,
            ColourModel(),
            code_index=FakeCode(),
            media_roots=[folder],
            indexing=Indexing(index, [folder]),
        )
        size = {"width": width, "height": 800}
        with (
            serving(app) as address,
            open_page(browser, address, viewport=size, color_scheme=scheme) as page,
        ):
            for state, place in STATES.items():
                page.goto(state)
                expect(page.locator(place).first).to_be_visible()
                found[state] = violations(page)
            page.goto("/?q=red&show=image&open=1")
            page.get_by_role("button", name="Show where").click()
            expect(page.locator("#heat-status")).not_to_be_empty()
            found["heat"] = violations(page)
            page.goto("/")
            page.get_by_role("button", name="Index a folder").click()
            expect(page.get_by_role("button", name="Start")).to_be_visible()
            found["indexing"] = violations(page)
            page.goto("/")
            page.evaluate("document.querySelector('main').append(document.createElement('img'))")
            assert violations(page)  # the rules are at work
    assert {state: each for state, each in found.items() if each} == {}
