"""The book, opened from the disk in Chromium: landing page, figure and back; search; a phone."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the built book: that in BOOK, else a fresh one."""
    if find_spec("myst_nb") is None and "BOOK" not in os.environ:
        pytest.skip("Sphinx is not installed; python -m pip install -e '.[book]'")
    folder = Path(os.environ.get("BOOK") or tmp_path_factory.mktemp("book"))
    if "BOOK" not in os.environ:
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", ".", str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return f"{folder.resolve().as_uri()}/index.html"


@pytest.fixture
def page(home: str, chromium: Any) -> Any:
    """The landing page on a laptop, and in ``asked`` what it loads from elsewhere."""
    opened = chromium.new_page(viewport={"width": 1280, "height": 800})
    opened.asked = []
    opened.on("request", lambda asked: asked.url.startswith("http") and opened.asked.append(asked.url))
    opened.goto(home)
    opened.wait_for_url("**/docs/index.html")
    yield opened
    opened.close()


def shown(image: Any) -> bool:
    image.scroll_into_view_if_needed()
    return image.evaluate("async image => { await image.decode(); return image.naturalWidth > 300 }")


def test_from_the_landing_page_to_ot_04_and_back(page: Any) -> None:
    assert shown(page.get_by_alt_text("Six prompts"))
    page.locator("article").get_by_role("link", name="ot-04").click()
    section = page.locator("section#ot-04")
    assert shown(section.locator("img"))
    assert section.locator("img").get_attribute("alt").strip()
    assert "holds" in section.inner_text() and "fusedream-nb reproduce ot-04" in section.inner_text()
    section.get_by_role("link", name="Notebook 12").click()
    page.wait_for_url("**/12_the_cost_plane.html")
    assert page.locator("math").count() > 5
    assert all(image.get_attribute("alt").strip() for image in page.locator(".cell_output img").all())
    page.locator(".sidebar-brand").click()
    page.wait_for_url("**/docs/index.html")
    assert not page.asked  # neither scripts nor fonts nor pictures come from elsewhere


def test_solutions_are_folded(page: Any) -> None:
    page.goto(page.url.replace("docs/index", "notebooks/00_start_here"))
    solution = page.get_by_text("return (weights * basis).sum(0, keepdim=True)")
    assert not solution.first.is_visible()


def test_the_search_works_without_a_server(page: Any) -> None:
    page.locator("input[name=q]").first.fill("Sinkhorn")
    page.keyboard.press("Enter")
    page.locator("#search-results li a", has_text="Two prompts").first.wait_for()


@pytest.mark.parametrize("name", ["docs/index", "docs/gallery", "notebooks/12_the_cost_plane", "docs/speed"])
def test_a_phone_scrolls_wide_things_but_not_the_page(page: Any, name: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(page.url.replace("docs/index", name))
    wide, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= seen
