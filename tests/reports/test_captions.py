"""Caption files of many kinds: each is read right, or refused with the file and the line."""

from __future__ import annotations

import csv
import json
import re
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedream_nb.evaluation.captions import read

DOGS = ["a café, with a dog", "a blue dog"]
READ = {
    "lines.jsonl": ('{"caption":"a café, with a dog"}\n\n{"caption":"a blue dog"}\n', "utf-8"),
    "keys.jsonl": ('{"id":1,"Text":"a café, with a dog"}\n{"Text":"a blue dog"}', "utf-8-sig"),
    "strings.ndjson": ('"a café, with a dog"\r\n"a blue dog"\r\n', "utf-8"),
    "list.json": (json.dumps(DOGS), "utf-16"),
    "rows.json": (json.dumps([{"prompt": text} for text in DOGS]), "utf-8-sig"),
    "tab.tsv": ("title\tfilepath\na café, with a dog\tx.jpg\na blue dog\ty.jpg\n", "utf-8"),
    "tab.csv": ("title\tfilepath\na café, with a dog\tx.jpg\na blue dog\ty.jpg\n", "utf-16"),
    "semicolon.csv": ("id;caption\n1;a café, with a dog\n2;a blue dog\n", "utf-8-sig"),
    "bar.csv": ("caption|id\na café, with a dog|1\na blue dog|2\n", "utf-8"),
    "unquoted.csv": ("caption\na café, with a dog\n\na blue dog\n", "utf-8"),
    "quoted.csv": ('caption\r\n"a café, with\r\na dog"\r\na blue dog\r\n', "utf-8"),
    "both.csv": ('image,text,caption\n1,t,"a café, with a dog"\n2,t,a blue dog\n', "utf-8"),
    "lines.txt": ("a café, with a dog\ra  blue\u2028dog\r", "utf-16"),
    "big-endian.txt": ("\ufeffa café, with a dog\n a blue dog\n", "utf-16-be"),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_right(tmp_path, name):
    text, encoding = READ[name]
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert read(tmp_path / name) == DOGS


LONG = "a dog " * 50_000


def test_a_field_may_be_as_long_as_it_likes(tmp_path):
    (tmp_path / "long.csv").write_text(f"id,caption\n1,{LONG}\n2,a blue dog\n")
    assert read(tmp_path / "long.csv") == [LONG.strip(), "a blue dog"]


REFUSED = {
    "latin1.csv": ("caption\na dog\na café\n".encode("latin-1"), 3, "UTF-8"),
    "latin1.txt": ("a dog\n\na café\n".encode("cp1252"), 3, "UTF-8"),
    "unmarked.txt": ("a dog\na cat\n".encode("utf-16-le"), 1, "byte order mark"),
    "cut.csv": ("caption\na dog\n".encode("utf-16")[:-1], 2, "UTF-8"),
    "archive.txt": (b"a dog\nPK\x03\x04\x00\x00", 2, "not text"),
    "commas.csv": (b"id,caption\n1,a cat\n2,a dog, on a house\n", 3, "3 fields where the first line has 2"),
    "short.tsv": (b"id\tcaption\n1\ta cat\n2\n", 3, "1 fields where the first line has 2"),
    "open.csv": (b'id,caption\n1,"a cat\n2,a dog\n', 3, "quotes"),
    "after.csv": (b'id,caption\n1,"a" cat\n', 2, "quotes"),
    "two.csv": (b"image,prompt,text\n1,p one,t one\n", 1, "both text and prompt"),
    "none.csv": (b"a dog, on a house\na cat\n", 1, "no column is called caption"),
    "broken.jsonl": (b'{"caption":"a dog"}\n{"caption":\n', 2, "JSON"),
    "number.jsonl": (b'{"caption":"a dog"}\n\n7\n', 3, "a caption is a text"),
    "other.jsonl": (b'{"caption":"a dog"}\n{"name":"a cat"}\n', 2, "no column is called caption"),
    "half.jsonl": (b'"a dog"\n"\\ud83d"\n', 2, "a caption is a text"),
    "broken.json": (b'{"annotations": [\n{"caption": "a dog"},\n]}', 3, "JSON"),
    "deep.json": (b"[" * 100_000, 1, "JSON"),
    "deep.jsonl": (b'"a dog"\n' + b"[" * 100_000, 2, "JSON"),
    "twice.csv": (b"caption,id,Caption\na,1,b\n", 1, "several columns are called caption"),
    "images.json": (b'{"images": []}', 1, "not COCO's"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_would_take_a_guess_is_refused_with_its_line(tmp_path, name):
    data, line, words = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}, line {line}: .*{words}[^\n]*\.$"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        ("coco.json", '{"annotations": [{"caption": null}, {"caption": "a cat"}]}', "row 1"),
        ("rows.jsonl", '{"caption": "a cat"}\n{"caption": " "}\n{"caption": null}\n', "line 2"),
        ("rows.csv", "id,caption\n1,a cat\n2,\n", "line 3"),
    ],
)
def test_rows_without_a_caption_are_left_out_and_reported(tmp_path, name, text, first):
    (tmp_path / name).write_text(text)
    with pytest.warns(UserWarning, match=f"{name}: . rows have no caption and are left out, first {first}"):
        assert read(tmp_path / name) == ["a cat"]


TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1
)


@given(texts=TEXTS, delimiter=st.sampled_from(",;\t|"), encoding=st.sampled_from(["utf-8-sig", "utf-16"]))
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:.*rows have no caption")
def test_whatever_a_csv_writer_writes_is_read_back(tmp_path_factory, texts, delimiter, encoding):
    file = StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([("id", "caption"), *enumerate(texts)])
    path = tmp_path_factory.mktemp("csv") / "all.csv"
    path.write_bytes(file.getvalue().encode(encoding))
    expected = list(dict.fromkeys(" ".join(text.split()) for text in texts))
    expected = [text for text in expected if text]
    if expected:
        assert read(path) == expected
