"""Figures: the pixels are the pictures', the alternative text is there, the colours can be told apart."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fusedream_nb.method.run import Step
from fusedream_nb.models.generators import Latent
from fusedream_nb.notebook import show


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB")).astype(float)


def flat(*colours):
    """Images [n, 3, 16, 16] of one colour each."""
    return torch.tensor(colours).view(-1, 3, 1, 1).expand(-1, -1, 16, 16)


def steps(n, total=10):
    image = torch.zeros(n, 3, 8, 8)
    for i in range(total + 1):
        score = torch.full((n,), i / 10)
        yield Step(i, total, image + i / 10, score, image, score, Latent(torch.zeros(n, 2)), {}, float(i))


def test_the_corners_are_white_and_the_pictures_have_their_own_colours():
    shown = pixels(show.grid(flat((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0)), alt="red and blue"))
    h, w, _ = shown.shape
    assert (shown[0, 0] == 255).all()
    assert np.abs(shown[h // 2, w // 4] - [255, 0, 0]).max() < 3
    assert np.abs(shown[h // 2, 3 * w // 4] - [0, 0, 255]).max() < 3


def test_values_out_of_range_are_clamped_not_stretched():
    shown = pixels(show.grid(flat((0.0, 5.0, -5.0)), alt="one"))
    h, w, _ = shown.shape
    assert np.abs(shown[h // 2, w // 2] - [127.5, 255, 0]).max() < 3


def test_rows_and_columns_follow_the_number_of_images():
    small = pixels(show.grid(torch.zeros(3, 3, 8, 8), alt="a", columns=3))
    tall = pixels(show.grid([torch.zeros(2, 3, 8, 8), torch.zeros(5, 3, 8, 8)], alt="a", columns=3))
    assert small.shape[1] == tall.shape[1]
    assert tall.shape[0] == pytest.approx(3 * small.shape[0], abs=2)


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_blank_alternative_text_is_refused(alt):
    with pytest.raises(ValueError, match="alternative text"):
        show.grid(torch.zeros(1, 3, 8, 8), alt=alt)
    with pytest.raises(ValueError, match="alternative text"):
        show.curves({"a": [1.0]}, alt=alt)
    with pytest.raises(ValueError, match="alternative text"):
        show.filmstrip(list(steps(1)), alt=alt)


def test_empty_figures_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="0 images"):
        show.grid(torch.zeros(0, 3, 8, 8), alt="none")
    with pytest.raises(ValueError, match="1 images, 2 titles"):
        show.grid(torch.zeros(1, 3, 8, 8), ["a", "b"], alt="none")
    with pytest.raises(ValueError, match="empty"):
        show.filmstrip([], alt="none")
    with pytest.raises(ValueError, match="empty"):
        show.curves({}, alt="none")


def test_a_notebook_gets_plots_to_the_pixel_and_pictures_nearly(tmp_path):
    rng = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.rand(6, 3, 4, 4, generator=rng) * 2 - 1, (64, 64), mode="bicubic"
    )
    for figure, kind, most in (
        (show.curves({"a": [0.0, 1.0]}, alt="$1 & <b>"), "image/png", 0),
        (show.grid(smooth.clamp(-1, 1), list("abcdef"), alt="$1 & <b>"), "image/jpeg", 3),
    ):
        data, metadata = figure._repr_mimebundle_(include=None, exclude=None)
        assert data["text/plain"] == metadata[kind]["alt"] == "$1 & <b>"
        kept = Image.open(io.BytesIO(base64.b64decode(data[kind])))
        assert np.abs(np.asarray(kept.convert("RGB")) - pixels(figure)).mean() <= most
        whole = Image.open(figure.save(tmp_path / "x.png"))
        assert whole.text["Description"] == "$1 & <b>"
        assert (np.asarray(whole.convert("RGB")) == pixels(figure)).all()


def test_equal_pictures_give_equal_bytes():
    assert show.grid(flat((0.1, 0.2, 0.3)), alt="x") == show.grid(flat((0.1, 0.2, 0.3)), alt="x")


def test_the_world_is_written_on_the_figure():
    plain = pixels(show.curves({"a": [0.0, 1.0]}, alt="a line"))
    named = pixels(show.curves({"a": [0.0, 1.0]}, alt="a line", world="sticker world"))
    corner = named[-16:, -100:]
    assert plain.shape == named.shape
    assert (plain[-16:, -100:] == 255).all()
    assert (corner < 200).any()


@pytest.mark.parametrize(("n", "frames"), [(1, 6), (2, 4), (1, 50)])
def test_a_filmstrip_has_a_row_an_image_and_shows_the_first_and_the_last_step(n, frames):
    run = list(steps(n))
    shown = pixels(show.filmstrip(run, frames=frames, alt="from grey to white"))
    wide = min(frames, len(run))
    assert shown.shape[1] == pytest.approx(wide * show.TILE * 110, abs=2)
    centre = shown[shown.shape[0] // (2 * n)]
    tile = shown.shape[1] // wide
    assert centre[tile // 2, 0] == pytest.approx(127.5, abs=3)
    assert centre[-tile // 2, 0] == pytest.approx(255, abs=3)


def test_the_colours_are_told_apart_by_lightness_or_hue_for_dichromats():
    """Simulated by Viénot, Brettel and Mollon (1999): no two colours fall together."""
    red_blind = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
    green_blind = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    colours = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in show.PALETTE]) ** 2.2
    for matrix in (np.eye(3), red_blind, green_blind):
        seen = (colours @ matrix.T).clip(0, 1) ** (1 / 2.2)
        apart = [np.abs(a - b).max() for a, b in itertools.combinations(seen, 2)]
        assert min(apart) > 0.09


def test_curves_over_seeds_show_a_band():
    one = pixels(show.curves({"a": torch.zeros(5)}, alt="flat"))
    runs = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    many = pixels(show.curves({"a": runs}, alt="band"))
    assert (many < 250).sum() > 2 * (one < 250).sum()


def test_a_gallerys_pictures_can_be_smaller_and_its_titles_wrap_sooner():
    images, title = flat((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0)), "a title of thirty letters or so"
    wide, small = (pixels(show.grid(images, alt="two", tile=tile)).shape[1] for tile in (show.TILE, 0.75))
    assert abs(small - wide / 2) <= 1
    titled = (pixels(show.grid(images, [title], alt="two", tile=tile)).shape[0] for tile in (1.5, 0.75))
    bare = (pixels(show.grid(images, alt="two", tile=tile)).shape[0] for tile in (1.5, 0.75))
    lines = [tall - low for tall, low in zip(titled, bare, strict=True)]
    assert lines[1] > lines[0]


def test_long_titles_are_wrapped_and_rows_have_names():
    images = torch.zeros(4, 3, 8, 8)
    short = pixels(show.grid(images, ["a", "b"], alt="x", columns=2))
    wrapped = pixels(show.grid(images, ["a photo of a blue dog on a snowy hill", "b"], alt="x", columns=2))
    named = pixels(show.grid(images, ["a", "b"], alt="x", columns=2, rows=["by CLIP", "by AugCLIP"]))
    assert wrapped.shape[0] - short.shape[0] == pytest.approx(show.LINE * 110, abs=2)  # in its own row
    assert wrapped.shape[1] == short.shape[1]
    margin = named.shape[1] - short.shape[1]
    assert named.shape[0] == short.shape[0]
    for half in np.array_split(named[:, :margin], 2):
        assert (half < 100).any()  # letters
    with pytest.raises(ValueError, match="2 rows, 3 names"):
        show.grid(images, alt="x", columns=2, rows=["a", "b", "c"])


def test_runs_of_different_lengths_share_a_filmstrip():
    runs = {"by CLIP": list(steps(1)), "by AugCLIP": list(steps(1, total=4))}
    shown = pixels(show.filmstrip(runs, frames=4, alt="two runs"))
    alone = pixels(show.filmstrip(runs["by CLIP"], frames=4, alt="one run"))
    assert shown.shape[0] == pytest.approx(2 * alone.shape[0], abs=2)
    assert shown.shape[1] > alone.shape[1]
    last = shown.shape[1] - int(show.TILE * 55)
    assert shown[shown.shape[0] // 4, last, 0] == pytest.approx(255, abs=3)
    assert shown[shown.shape[0] * 3 // 4, last, 0] == pytest.approx(255 * 0.7, abs=3)
    with pytest.raises(ValueError, match="equally many"):
        show.filmstrip({"a": list(steps(1)), "b": list(steps(2))}, alt="x")
    with pytest.raises(ValueError, match="empty"):
        show.filmstrip({"a": list(steps(1)), "b": []}, alt="x")


def test_a_sweep_has_its_own_axis(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDREAM_FIGURES", str(tmp_path))
    sizes = [1, 100, 10_000]
    show.curves({"k = 5": torch.rand(4, 3)}, x=sizes, log=True, alt="a sweep", figure="fd-04")
    labels = re.findall("<!-- (.*?) -->", (tmp_path / "fd-04.svg").read_text("utf-8"))
    assert {"1", "100", "10,000"} <= set(labels)
    assert not [label for label in labels if "$" in label]
    with pytest.raises(ValueError, match="above zero"):
        show.curves({"k = 5": [1.0, 2.0]}, log=True, alt="a sweep")
    with pytest.raises(ValueError, match="'k = 5' has 2 points, x has 3"):
        show.curves({"k = 5": [1.0, 2.0]}, x=sizes, alt="a sweep")


@pytest.mark.parametrize("name", ["", "fd/02", "../fd-02", "FD-02", "fd-02.png", "fd_02"])
def test_an_id_that_is_no_file_name_is_refused(name):
    with pytest.raises(ValueError, match="like fd-05"):
        show.curves({"a": [1.0]}, alt="x", figure=name)


def test_figures_with_an_id_are_kept_with_their_record(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDREAM_FIGURES", str(tmp_path / "kept"))
    monkeypatch.setenv("FUSEDREAM_RECORD", json.dumps({"budget": "quick", "seed": 3}))
    alt, line = "a line & <b>", {"a": [0.0, 1.0]}
    plot = show.curves(line, alt=alt, figure="fd-05-curves", world="sticker world")
    picture = show.grid(torch.zeros(1, 3, 8, 8), alt="grey", figure="fd-05")
    show.grid(torch.zeros(1, 3, 8, 8), alt="grey")
    kept = tmp_path / "kept"
    assert sorted(path.name for path in kept.iterdir()) == [
        "fd-05-curves.png",
        "fd-05-curves.svg",
        "fd-05.png",
    ]
    with Image.open(kept / "fd-05-curves.png") as image:
        assert json.loads(image.text["fusedream"]) == {
            "figure": "fd-05-curves", "alt": alt, "budget": "quick", "seed": 3, "format": 1,
        }  # fmt: skip
        assert image.text["Description"] == alt
        assert (np.asarray(image.convert("RGB")) == pixels(plot)).all()
    assert "fusedream" not in Image.open(io.BytesIO(picture.png)).text
    drawing = (kept / "fd-05-curves.svg").read_text("utf-8")
    assert alt in [element.text for element in ElementTree.fromstring(drawing).iter()]
    assert "<!-- sticker world -->" in drawing
    show.curves(line, alt=alt, figure="fd-05-curves", world="sticker world")
    assert (kept / "fd-05-curves.svg").read_text("utf-8") == drawing


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("FUSEDREAM_FIGURES", raising=False)
    monkeypatch.chdir(tmp_path)
    show.grid(torch.zeros(1, 3, 8, 8), alt="grey", figure="fd-05")
    assert not list(tmp_path.iterdir())


def test_a_line_of_a_title_fits_above_its_picture():
    canvas = FigureCanvasAgg(Figure())
    for title in ("a photo of a green elephant", "a painting of a flaming dog"):
        line = canvas.figure.text(0, 0, title[: show.LETTERS], fontsize=8)
        assert line.get_window_extent(canvas.get_renderer()).width / canvas.figure.dpi < show.TILE


def test_a_frame_has_its_groups_colour_and_leaves_the_middle():
    images = flat((0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    made = show.framed(images, torch.tensor([1, 0]), 0.1)
    assert torch.equal(made[:, :, 2:-2, 2:-2], images[:, :, 2:-2, 2:-2])
    for image, group in zip(made, (1, 0), strict=True):
        corner = ((image[:, 0, 0] + 1) / 2 * 255).round().int().tolist()
        assert "#" + "".join(f"{value:02X}" for value in corner) == show.PALETTE[group]


def test_a_diagram_has_its_boxes_and_refuses_an_arrow_to_nowhere():
    boxes = {"text": (0, 0), "score": (1, 0)}
    plain = show.diagram(boxes, [("text", "score")], alt="text, score")
    assert plain.alt == "text, score"
    back = show.diagram(boxes, [("text", "score")], back=[("score", "text", "gradient")], alt="text, score")
    assert back.png != plain.png
    with pytest.raises(KeyError):
        show.diagram(boxes, [("text", "picture")], alt="text, score")
