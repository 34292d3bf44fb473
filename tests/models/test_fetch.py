"""Downloads from a server on this machine that plays the mirrors: never a bad file under a good name."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from fusedream_nb.models.fetch import fetch, sources
from fusedream_nb.models.weights import Entry, File, entry

FETCH = """
import sys
from pathlib import PosixPath, WindowsPath
from fusedream_nb.models.weights import Entry, File
from fusedream_nb.models.fetch import fetch
if len(sys.argv) > 2:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    fetch(eval(sys.argv[1]), timeout=60, pause=0)
except OSError as error:
    sys.exit(f"{error.filename}: {error.strerror}")
"""


def row(folder: Path, content: bytes, *urls: str, known: bool = True, name: str = "model.bin") -> Entry:
    """A model of one file with some mirrors; without ``known`` neither its size nor its hash is."""
    digest = hashlib.sha256(content).hexdigest()
    file = File(name, len(content), digest, urls) if known else File(name, urls=urls)
    return Entry("some-model", "generator", "MIT", (file,), folder / "some-model")


def get(model: Entry, *, timeout: float = 5, again: bool = False) -> bytes:
    return (fetch(model, timeout=timeout, pause=0, again=again) / model.files[0].name).read_bytes()


def left(model: Entry) -> set[str]:
    """What is in the folder beside locks, and beside the empty files that pooch begins with."""
    paths = model.folder.iterdir() if model.folder.exists() else ()
    return {path.name for path in paths if path.suffix != ".lock" and path.stat().st_size}


def start(model: Entry, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, repr(model), *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_the_right_file(mirror, tmp_path) -> None:
    model = row(tmp_path, mirror.content, mirror.url("a"))
    assert get(model) == mirror.content
    assert left(model) == {"model.bin"}
    assert model.here and model.problems() == []
    get(model)
    get(model, again=True)
    assert len(mirror.asked) == 1  # what is here is not fetched again


@pytest.mark.parametrize(
    "fault", ["wrong", "half", "half, unannounced", "more", "empty", "page", "hang up", "loop", 403, 404, 500]
)
@pytest.mark.parametrize("known", [True, False], ids=["hash", "no hash"])
def test_a_fault_alone_leaves_nothing_and_before_a_mirror_nothing_wrong(
    mirror, tmp_path, fault, known
) -> None:
    packed = io.BytesIO()
    torch.save({"weight": torch.arange(40_000.0)}, packed)  # its own checksums tell a changed byte
    mirror.content = packed.getvalue()
    alone = row(tmp_path, mirror.content, mirror.url("a", fault), known=known)
    with pytest.raises(FileNotFoundError, match="No source gave model.bin: http.*/a \\("):
        get(alone)
    assert not alone.here
    assert not left(alone)
    both = row(tmp_path, mirror.content, mirror.url("b", fault), mirror.url("c"), known=known)
    assert get(both) == mirror.content
    assert left(both) == {"model.bin"} if known else {"model.bin", "model.bin.sha256"}


@pytest.mark.parametrize("fault", ["wrong", "half", 500, 503])
def test_a_fault_that_passes(mirror, tmp_path, fault) -> None:
    assert get(row(tmp_path, mirror.content, mirror.url("a", fault, "right"))) == mirror.content


def test_a_mirror_that_stalls_is_left_for_the_next(mirror, tmp_path) -> None:
    model = row(tmp_path, mirror.content, mirror.url("a", "stall"), mirror.url("b"))
    assert get(model, timeout=0.5) == mirror.content
    assert mirror.asked == ["/a", "/b"]


@pytest.mark.parametrize("junk", [b"another file's beginning", b"x" * 400_000, "whole"])
def test_a_part_that_lies_there_is_written_anew(mirror, tmp_path, junk) -> None:
    model = row(tmp_path, mirror.content, mirror.url("a"))
    model.folder.mkdir()
    part = model.folder / "model.bin.part"
    part.write_bytes(mirror.content if junk == "whole" else junk)
    assert get(model) == mirror.content
    assert left(model) == {"model.bin"}


def test_what_is_wrong_under_a_good_name_is_replaced(mirror, tmp_path) -> None:
    model = row(tmp_path, mirror.content, mirror.url("a"))
    model.folder.mkdir()
    (model.folder / "model.bin").write_bytes(b"put here by hand")
    assert get(model, again=True) == mirror.content


@pytest.mark.parametrize(
    ("name", "right"),
    [("m.json", True), ("m.safetensors", True), ("m.json", False), ("m.safetensors", False)],
)
def test_without_a_hash_a_file_must_be_what_its_name_says(mirror, tmp_path, name, right) -> None:
    good = {"m.json": b'{"a": 1}', "m.safetensors": save({"w": torch.zeros(9)})}
    mirror.content = good[name] if right else good[{"m.json": "m.safetensors"}.get(name, "m.json")]
    model = row(tmp_path, b"", mirror.url("a"), known=False, name=name)
    if right:
        assert get(model) == mirror.content
        assert (model.folder / f"{name}.sha256").read_text().strip() == hashlib.sha256(
            mirror.content
        ).hexdigest()
        (model.folder / name).write_bytes(mirror.content + b" ")
        assert model.problems()  # its hash is known from now on
    else:
        with pytest.raises(FileNotFoundError, match=f"what came is no .{name[2:]} file"):
            get(model)
        assert not model.folder.exists()


def test_a_hash_of_which_the_first_digits_are_known(mirror, tmp_path) -> None:
    mirror.content = b"{}"
    digest = hashlib.sha256(b"{}").hexdigest()
    for known, fine in ((digest[:8], True), ("0" * 8, False)):
        file = File(f"{known}.json", None, known, (mirror.url("a"),))
        model = Entry("some-model", "perceptual", "MIT", (file,), tmp_path)
        if fine:
            assert get(model) == b"{}"
        else:
            with pytest.raises(FileNotFoundError, match="has the hash"):
                get(model)


def test_a_full_disk_ends_it_and_is_cleared(mirror, tmp_path) -> None:
    pytest.importorskip("resource")
    model = row(tmp_path, mirror.content, mirror.url("a"), mirror.url("b"))
    process = start(model, "100000")
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert re.search(r"model.bin: There is no room on the disk", told)
    assert not model.folder.exists()
    assert mirror.asked == ["/a"]  # another mirror would not mend it


def test_more_than_there_is_room_for_is_not_begun(mirror, tmp_path) -> None:
    file = File("model.bin", 2**60, "0" * 64, (mirror.url("a"),))
    model = Entry("some-model", "generator", "MIT", (file,), tmp_path)
    with pytest.raises(OSError, match="bytes are free, 1,152,921,504,606,846,976 are required"):
        fetch(model)
    assert mirror.asked == []


def test_two_processes_fetch_once(mirror, tmp_path) -> None:
    model = row(tmp_path, mirror.content, mirror.url("a", "stall", "right"))
    first = start(model)
    assert mirror.stalled.wait(60)
    second = start(model)
    mirror.released.set()  # the first one's half ends there; it asks again
    assert [process.wait(60) for process in (first, second)] == [0, 0]
    assert (model.folder / "model.bin").read_bytes() == mirror.content
    assert mirror.asked == ["/a", "/a"]
    for process in (first, second):
        process.stderr.close()


def test_killed_in_the_middle_it_is_fetched_when_asked_again(mirror, tmp_path) -> None:
    model = row(tmp_path, mirror.content, mirror.url("a", "stall", "right"))
    process = start(model)
    assert mirror.stalled.wait(60)
    process.kill()
    process.communicate()
    assert not model.here
    assert get(model) == mirror.content
    assert left(model) == {"model.bin"}


@pytest.mark.parametrize("name", ["FUSEDREAM_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody_and_says_what_to_put_where(mirror, tmp_path, monkeypatch, name) -> None:
    monkeypatch.setenv(name, "1")
    model = row(tmp_path, mirror.content, mirror.url("a"))
    with pytest.raises(FileNotFoundError) as told:
        fetch(model)
    assert mirror.asked == []
    for said in (
        "some-model",
        "model.bin",
        "300,000 bytes",
        "MIT",
        str(model.folder),
        mirror.url("a"),
        "off",
    ):
        assert said in str(told.value)


def test_a_mirror_of_ones_own_comes_first(mirror, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FUSEDREAM_MIRROR", f"http://127.0.0.1:{mirror.server_port}/")
    model = entry("biggan-deep-256", tmp_path)
    assert sources(model, model.files[0])[0] == mirror.url("biggan-deep-256/config.json")
    assert sources(model, model.files[0])[1:] == model.files[0].urls


def test_commands(mirror, tmp_path, monkeypatch, capsys) -> None:
    """fetch, verify and rm, with a server that has one model of the catalogue."""
    from fusedream_nb.cli import main

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["models", *arguments, "--cache", str(tmp_path)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    def listed() -> dict[str, dict]:
        return {r["name"]: r for r in json.loads(run("--json")[1])}

    monkeypatch.setenv("FUSEDREAM_MIRROR", f"http://127.0.0.1:{mirror.server_port}")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{mirror.server_port}")
    mirror.content = b'{"_class_name": "VQModel"}'
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        mirror.url(f"amused/{name}", 404)
        mirror.url(f"amused/amused-256/resolve/main/vqvae/{name}")
    code, out = run("fetch", "amused")
    assert (code, "what came is no .safetensors file" in out) == (2, True)
    assert not listed()["amused"]["here"]
    mirror.content = save({"w": torch.zeros(9)})
    assert run("fetch", "amused") == (0, f"{tmp_path / 'amused'}\n")
    assert listed()["amused"]["here"]
    code, out = run("verify")
    assert code == 0 and "as it was first fetched" in out and "right" in out
    notes = {path: path.read_text() for path in (tmp_path / "amused").glob("*.sha256")}
    for path in notes:
        path.unlink()
    code, out = run("verify", "amused")
    assert code == 0 and out.count("not checked") == 2 and "right" not in out
    assert "compare it with a fresh copy: fusedream-nb models fetch amused" in " ".join(out.split())
    assert run("fetch", "amused")[0] == 0  # what is not known to be wrong stays
    for path, digest in notes.items():
        path.write_text(digest)
    (tmp_path / "amused" / "config.json").write_text("{}")
    code, out = run("verify", "amused")
    assert code == 1 and "wrong" in out and "does not have the hash" in " ".join(out.split())
    (tmp_path / "amused" / "mine.txt").write_text("kept")
    assert run("rm", "amused")[0] == 0
    assert [path.name for path in (tmp_path / "amused").iterdir()] == ["mine.txt"]
    assert run("rm", "stickers")[0] == 2
    code, out = run("fetch", "no-such-model")
    assert code == 2 and "No model is called 'no-such-model'" in out
