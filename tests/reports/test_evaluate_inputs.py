"""`evaluate` opens all of its inputs before the first picture: what is wrong with one is said at once."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from fusedream_nb.cli import main

REFUSED = [
    (["--reference", "none"], "none: no such file"),
    (["--reference", "empty"], "empty holds 0 pictures"),
    (["--reference", "broken"], "broken/b.png"),
    (["--reference", "dogs.txt"], "dogs.txt: not a directory"),
    (["--captions", "none.csv"], "none.csv: no such file"),
    (["--captions", "one.txt"], "one.txt holds a single caption"),
    (["--captions", "empty"], "empty: is a directory"),
    (["--captions", "dogs.txt", "--methods", "real"], "leave out the method real"),
    (["--methods", "random, x"], "No method is called 'x'"),
    (["--damsm", "empty"], "0 files image_encoder"),
    (["--inception", "dogs.txt"], "--inception is for other models"),
    (["--inception", "none.pth", "--reference", "empty"], "--inception is for other models"),
    (["--workers", "2"], "--workers is for --ray"),
    (["--model", "biggan-256"], "give --captions"),
    (["--model", "dalle", "--captions", "dogs.txt"], "dalle"),
    (["--out", "dogs.txt/run"], "Nothing can be written"),
    (["--out", "s3://bucket/run"], "pip install s3fs"),
    (["--out", "begun"], "begun/run.json should hold a run's settings"),
    (["--out", "edited"], "edited/run.json should hold a run's settings"),
]


@pytest.fixture
def nothing_is_drawn(monkeypatch, tmp_path):
    """An empty folder with a few inputs; drawing anything is a failure."""
    from fusedream_nb.evaluation import methods

    def draw(*_):
        raise AssertionError("a picture was drawn")

    monkeypatch.setattr(methods, "draw", draw)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEDREAM_DEVICE", "cpu")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/run.json").write_text("[")
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited/run.json").write_text('{"threads": "many"}')
    Image.new("RGB", (9, 9)).save(tmp_path / "broken/a.png")
    (tmp_path / "broken/b.png").write_bytes(b"no picture")
    (tmp_path / "one.txt").write_text("a dog\n a  dog\n")
    (tmp_path / "dogs.txt").write_text("a dog\nno caption of the test set\n")


@pytest.mark.parametrize(("arguments", "reason"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
def test_a_bad_input_is_one_sentence_before_the_first_picture(nothing_is_drawn, capsys, arguments, reason):
    out = [] if "--out" in arguments else ["--out", "run"]
    assert main(["evaluate", "--limit", "2", *out, *arguments]) == 2
    printed, said = capsys.readouterr()
    assert printed == ""
    assert re.fullmatch(rf"fusedream-nb: [^\n]*{re.escape(reason)}[^\n]*\n", said), said
