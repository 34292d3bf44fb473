"""Slides are the notebooks' own pictures, described in words."""

from __future__ import annotations

import base64
import re

import nbformat
import pytest
import workshop_build as build


@pytest.fixture(scope="module")
def page():
    return build.slides(build.notebooks(["00", "12"]), modules="node_modules")


def test_every_tagged_picture_is_on_a_slide_with_its_alternative_text(page):
    shown = re.findall(r'<img alt="([^"]+)"[^>]*src="data:image/\w+;base64,([^"]+)"', page.replace("\n", ""))
    there = {base64.b64decode(picture) for _, picture in shown}
    for path in build.notebooks(["00", "12"]):
        for cell in nbformat.read(path, as_version=4).cells:
            if build.tagged(cell, "slide"):
                kinds = [(out, kind) for out in cell.outputs for kind in out.get("data", {})]
                pictures = [out.data[kind] for out, kind in kinds if kind.startswith("image/")]
                assert pictures and all(base64.b64decode(picture) in there for picture in pictures)
    assert all(alt.strip() for alt, _ in shown)


def test_slides_show_no_code(page):
    assert "torch" not in re.sub(r"<(script|style).*?</\1>|data:image[^\"]+", "", page, flags=re.DOTALL)


def test_slides_for_a_room_offline_take_scripts_from_a_folder(page):
    assert '"node_modules/reveal.js/dist/reveal.js"' in page
    assert '<script src="node_modules/requirejs/require.js">' in page
    assert "reveal.js@" not in page  # as nbconvert names it on the web


def test_each_notebook_has_slides():
    for path in build.notebooks():
        cells = nbformat.read(path, as_version=4).cells
        assert sum(build.tagged(cell, "slide") for cell in cells) >= 2, path.name


def test_an_unknown_notebook_is_named():
    with pytest.raises(ValueError, match="No notebook has the number 42"):
        build.notebooks(["42"])
