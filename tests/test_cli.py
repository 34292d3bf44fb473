from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from numpy import asarray
from PIL import Image, ImageSequence
from typer.testing import CliRunner

from fusedream_nb import __version__, read_record, save
from fusedream_nb.cli import app, main
from fusedream_nb.method import budgets
from fusedream_nb.method.run import Run
from fusedream_nb.records import film as film_module
from fusedream_nb.records import png

COMMANDS = ("generate", "show", "replay", "reproduce", "figures", "evaluate", "models", "doctor")
TINY = {"M": 6, "k": 2, "steps": 2, "copies": 2, "start_copies": 2, "judged_copies": 2}
TINY_CLI = f"""
import sys
from dataclasses import replace
from fusedream_nb.method import budgets
from fusedream_nb.cli import main
budgets.BUDGETS["quick"] = replace(budgets.BUDGETS["quick"], **{TINY} | {{"M": int(sys.argv.pop(1))}})
sys.exit(main())
"""


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder, its quick budget a tiny one; return code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEDREAM_BUDGET", "quick")
    monkeypatch.setenv("FUSEDREAM_DEVICE", "cpu")
    monkeypatch.delenv("FUSEDREAM_DEBUG", raising=False)
    monkeypatch.setitem(budgets.BUDGETS, "quick", replace(budgets.BUDGETS["quick"], **TINY))

    def run(*arguments):
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


def test_help_lists_the_commands_and_each_command_has_an_example(run):
    code, out, _ = run()
    assert code == 0
    assert all(command in out for command in COMMANDS)
    for command in COMMANDS:
        code, out, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert f"fusedream-nb {command}" in out


def test_the_app_itself_answers_typers_runner():
    result = CliRunner().invoke(app, ["generate", "--help"])
    assert result.exit_code == 0
    assert "--seeds" in result.output


def test_version(run):
    assert run("--version") == (0, f"fusedream-nb {__version__}\n", "")


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from fusedream_nb.cli import main; main(['generate', '--help']); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


BAD = [
    (["generate", ""], "prompt is empty"),
    (["generate", "a dog", " \n\t"], "prompt is empty"),
    (["generate"], "PROMPT"),
    (["generate", "x", "--steps", "-1"], "--steps"),
    (["generate", "x", "--steps", "many"], "--steps"),
    (["generate", "x", "--seed", "-1"], "--seed"),
    (["generate", "x", "--seed", str(2**63)], "seed"),
    (["generate", "x", "--seeds", "0"], "--seeds"),
    (["generate", "x", "--seeds", "1000000000000"], "--seeds"),
    (["generate", "x", "--budget", "huge"], "smoke, quick, gallery, colab, paper"),
    (["generate", "x", "--model", "dalle"], "stickers"),
    (["generate", "x", "--model", "biggan-deep-512"], "not on this machine"),
    (["generate", "x", "--device", "tpu"], "auto, cpu, cuda, mps"),
    (["generate", "x", "--sede", "1"], "--sede"),
    (["generate", "x", "--out", "file/below"], "Nothing can be written"),
    (["generate", "x", "--out", "file"], "Nothing can be written"),
    (["generate", "x", "--out", "y" * 300], "Nothing can be written"),
    (["generate", "x", "--compose", "--transport"], "choose one"),
    (["generate", "x", "--placements", "all"], "--compose"),
    (["generate", "x", "--mean"], "--transport"),
    (["generate", "a dog", "--classes", "dogs"], "classes, normal, nearest"),
    (["generate", "x", "--classes", "nearest", "--compose"], "--classes"),
    (["generate", "x", "--compose", "--placements", "left@0.5"], "'left@0.5'"),
    (["generate", "x", "--compose", "--placements", "9@1.5"], "left-bottom@0.4"),
    (["generate", "a dog", "--compose", "--placements", "9@0.1"], "too small"),
    (["generate", "x", "--transport", "--canvas", "big"], "WIDTHxHEIGHT"),
    (["generate", "x", "--transport", "--canvas", "64x64", "--model", "stickers"], "one size"),
    (["draw", "x"], "draw"),
    (["show"], "FILE.png"),
    (["show", "none.png"], "none.png: no such file"),
    (["show", "."], "directory"),
    (["show", "file"], "not a PNG"),
    (["replay", "none.png"], "none.png: no such file"),
    (["replay", "file"], "not a PNG"),
]


@pytest.mark.parametrize(("arguments", "reason"), BAD, ids=lambda value: " ".join(value)[:40])
def test_bad_input_gets_one_sentence_and_exit_code_2(run, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("text")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"fusedream-nb: [^\n]+\n", err), err
    assert re.search(reason, err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_a_gpu_that_is_not_there_is_named(run):
    code, _, err = run("generate", "x", "--device", "cuda")
    assert (code, err.count("\n")) == (2, 1)
    assert "cuda" in err


def test_a_full_disk_is_noticed_before_the_work(run, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        code, out, err = run("generate", "x", "--budget", "paper")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "make room there" in err
    assert not list(tmp_path.iterdir())


def test_a_fault_of_the_program_is_a_sentence_unless_asked_for(run, monkeypatch):
    monkeypatch.setitem(budgets.BUDGETS, "quick", None)
    code, _, err = run("generate", "x", "--steps", "1")
    assert (code, err.count("\n")) == (1, 1)
    assert "FUSEDREAM_DEBUG=1" in err
    monkeypatch.setenv("FUSEDREAM_DEBUG", "1")
    with pytest.raises(TypeError):
        run("generate", "x", "--steps", "1")


def test_pictures_of_every_prompt_and_seed(models, run, tmp_path):
    prompts = ["a blue dog", "Red car!", "a blue dog"]
    code, out, err = run("generate", *prompts, "--seed", "5", "--seeds", "3", "--out", "made")
    assert code == 0
    paths = [Path(line) for line in out.splitlines()]
    assert [p.name for p in paths[:3]] == ["a-blue-dog-5.png", "a-blue-dog-6.png", "a-blue-dog-7.png"]
    assert all(re.fullmatch(r"red-car-[0-9a-f]{10}-[567].png", p.name) for p in paths[3:])
    assert len(paths) == 6 > Run.together
    told = [(record.prompt, record.seed) for record in map(read_record, paths)]
    assert told == [(prompt, seed) for prompt in prompts[:2] for seed in (5, 6, 7)]
    assert len(list((tmp_path / "made").iterdir())) == 12
    assert "score" in err
    assert "2/2" in err
    together = png.decode(paths[1])[0].astype(int)
    code, out, _ = run("generate", "a blue dog", "--seed", "6", "--out", "alone")
    assert abs(png.decode(Path(out.strip()))[0] - together).max() <= 1


def test_a_composition_with_its_film(models, run, tmp_path):
    asked = ["generate", "a dog on a house", "--compose", "--placements", "left-bottom@0.5", "--steps", "3"]
    code, out, err = run(*asked, "--foreground", "a dog", "--film")
    assert code == 0, err
    picture, film = map(Path, out.splitlines()[:2])
    told = read_record(picture)
    assert (told.method, told.options["foreground"]) == ("compose", "a dog")
    ((place,),) = told.options["placements"]["groups"]
    assert (place["alpha"], place["x"], place["y"]) == (0.5, 0.0, 1.0)
    assert film == picture.with_suffix(".gif")
    with Image.open(film) as frames:
        assert frames.n_frames > 1
        assert frames.size == (3 * 256 + 2 * 4, 256)
        played = [frame.info["duration"] for frame in ImageSequence.Iterator(frames)]
        shown = torch.from_numpy(asarray(frames.convert("RGB")).copy())  # the last one: the blended picture
    assert sum(played) == (4 + film_module.STAYS) * 1000 // film_module.RATE
    blended = torch.from_numpy(png.decode(picture)[0].copy())
    assert (shown[::4, -256::4].float() - blended.float()).abs().mean() < 4  # a GIF has 256 colours
    assert run("replay", str(picture))[0] == 0


def test_transport_makes_one_picture_of_all_prompts(models, run, tmp_path):
    asked = ["generate", "a dog", "a house:2", "ratio 4:x", "--transport", "--model", "stickers"]
    code, out, err = run(*asked, "--seeds", "2")
    assert code == 0, err
    records = [read_record(path) for path in out.splitlines()]
    assert [(told.prompt, told.seed) for told in records] == [
        ("a dog, a house, ratio 4:x", s) for s in (0, 1)
    ]
    assert records[0].options["weights"] == [1.0, 2.0, 1.0]
    assert run("replay", out.splitlines()[1])[0] == 0
    path = run(*asked[:3], "--transport", "--mean", "--model", "stickers")[1].strip()
    assert read_record(path).options["loss"] == "mean"


def test_json_is_all_that_stdout_holds(models, run):
    code, out, _ = run("generate", "a blue dog", "--seeds", "2", "--steps", "0", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["seed"] for row in rows] == [0, 1]
    assert {"path", "prompt", "seed", "score", "judge_score", "seconds"} <= rows[0].keys()
    assert read_record(rows[1]["path"]).score == rows[1]["score"]
    assert rows[0]["path"] == str(Path("fusedream-out") / "a-blue-dog-0.png")


NASTY = [
    "../../x", "/etc/passwd", "<script>alert(1)</script>", "'\"`$(ls)", "a\nb\r\tc", "🐶🐕", "dog " * 2_500,
    "-rf", "--seed", "\x1b[31mred\x07", "[bold]dog[/bold]", "%s{}\\", "\udc80dog", "\u202edog", "CON",
]  # fmt: skip


def test_any_string_is_a_prompt(models, run, tmp_path):
    code, out, err = run("generate", "--steps", "0", "--json", "--", *NASTY)
    assert code == 0, err
    rows = json.loads(out)
    assert [row["prompt"] for row in rows] == [text.replace("\udc80", "�") for text in NASTY]
    assert {path.parent for path in tmp_path.rglob("*.*")} == {tmp_path / "fusedream-out"}
    assert len(list((tmp_path / "fusedream-out").glob("*.png"))) == len(NASTY)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", err)
    for row in rows:
        code, out, err = run("show", row["path"])
        assert (code, err) == (0, "")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", out)
    assert "[bold]dog[/bold]" in run("show", rows[10]["path"])[1]
    assert json.loads(run("show", "--json", rows[9]["path"])[1])["prompt"] == NASTY[9]


def test_unknown_words_are_told_once_a_prompt(models, run):
    _, out, err = run("generate", "a zorp dog", "a flomp dog", "--seeds", "2", "--steps", "0")
    assert len(out.splitlines()) == 4
    assert [err.count(word) for word in ("'zorp'", "'flomp'")] == [1, 1]


def test_show_and_replay(models, run, tmp_path):
    path = run("generate", "a blue dog")[1].strip()
    assert re.search(r"prompt +a blue dog", run("show", path)[1])
    assert json.loads(run("show", path, "--json")[1])["M"] == TINY["M"]
    code, out, _ = run("replay", path, "--out", "again")
    assert code == 0
    assert out.splitlines() == ["equal", str(Path("again") / "a-blue-dog-0.png")]
    code, out, err = run("replay", path, "--out", "fusedream-out")
    assert (code, out) == (2, "")
    assert "another folder" in err


def test_a_replay_that_differs_says_how_far_and_why(models, run, tmp_path):
    path = run("generate", "a blue dog", "--steps", "0")[1].strip()
    told = replace(read_record(path), torch="0.4")
    path = save(torch.ones(3, 64, 64), told, tmp_path)
    code, out, err = run("replay", str(path))
    assert code == 1
    assert re.fullmatch(r"different: up to \d+ of 255 levels\n", out)
    assert "torch was 0.4 and is" in err


def test_models_says_what_is_here(models, run):
    rows = {row["name"]: row for row in json.loads(run("models", "--json")[1])}
    assert rows["stickers"]["here"]
    assert {"name", "role", "bytes", "here", "licence", "folder"} == rows["stickers"].keys()
    code, out, _ = run("models")
    assert code == 0
    assert all(name in out for name in rows)


def test_doctor_finds_what_is_well_and_what_is_not(models, run, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path))
    code, out, _ = run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)}
    assert code == 0, out
    assert {"Python", "torch", "cpu", "memory", "disk", "stickers", "ipywidgets"} <= checks.keys()
    assert all(check["advice"] for check in checks.values() if check["status"] != "ok")
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "nothing"))
    found = {check["name"]: check for check in json.loads(run("doctor", "--json")[1])}
    assert "PYTHONDONTWRITEBYTECODE" in found["bytecode"]["advice"]
    (tmp_path / "lpips-squeeze").mkdir()
    (tmp_path / "lpips-squeeze" / "squeezenet1_1-b8a52dc0.pth").write_text("cut short")
    code, out, _ = run("doctor")
    assert code == 1
    assert re.search(r"^fail +lpips-squeeze", out, re.MULTILINE)


def test_doctor_prepares_a_workshop(run, tmp_path, monkeypatch):
    code, out, _ = run("doctor", "--workshop", "--people", "100000", "--json")
    checks = {check["name"]: check for check in json.loads(out)}
    assert code == 0, out
    assert checks["notebooks"]["found"] == "17, imports tried"
    assert "steps" in checks["a picture"]["found"]
    assert checks["100000 people"]["status"] == "warn"
    assert re.search(r"enough for \d+;", checks["100000 people"]["advice"])
    cell = {"cell_type": "code", "source": "import torch\nimport no_such_module"}
    (tmp_path / "00_new.ipynb").write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setenv("FUSEDREAM_NOTEBOOKS", str(tmp_path))
    code, out, _ = run("doctor", "--workshop")
    assert code == 1
    assert re.search(r"^fail +00_new +No module named 'no_such_module'", out, re.MULTILINE)


@pytest.fixture
def start(tmp_path):
    """Start `generate` with a start of M samples in a terminal of its own; return it and its stderr."""
    pty = pytest.importorskip("pty")
    terminal, inside = pty.openpty()
    started = []

    def start(M, *arguments):
        command = [sys.executable, "-c", TINY_CLI, str(M), "generate", *arguments, "--device", "cpu"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=inside, text=True)
        started.append(process)
        os.close(inside)
        return process, terminal

    yield start
    for process in started:
        process.kill()
        process.communicate()
    os.close(terminal)


def read_until(terminal, pattern, seconds=300):
    """Read what a terminal shows until a pattern appears in it, or until its end."""
    shown, end = "", time.monotonic() + seconds
    while not (pattern and re.search(pattern, shown)) and time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                more = os.read(terminal, 4096)
            except OSError:  # what Linux says where the other end is closed
                break
            if not more:
                break
            shown += more.decode(errors="replace")
    return shown


def interrupt(process, terminal):
    """Press Ctrl-C; return exit code, stdout and what was still shown."""
    process.send_signal(signal.SIGINT)
    shown = read_until(terminal, None)
    return process.wait(60), process.stdout.read(), shown


def test_ctrl_c_keeps_the_best_so_far(models, start, tmp_path):
    process, terminal = start(TINY["M"], "a blue dog", "a red car", "--steps", "100000")
    shown = read_until(terminal, r"step [1-9]\d*/100000")
    assert "choosing a start" in shown
    assert "score" in shown
    code, out, err = interrupt(process, terminal)
    assert code == 130
    assert re.search(r"fusedream-nb: Stopped after step \d+ of 100000; the best so far is kept", err)
    assert "Traceback" not in err
    told = [read_record(tmp_path / path) for path in out.splitlines()]
    assert [record.prompt for record in told] == ["a blue dog", "a red car"]
    assert all(1 <= record.steps_done < record.steps == 100_000 for record in told)
    assert len(list((tmp_path / "fusedream-out").glob("[!.]*"))) == 4


def test_ctrl_c_before_the_first_picture_leaves_nothing(models, start, tmp_path):
    process, terminal = start(10**6, "a blue dog")
    read_until(terminal, "choosing a start")
    code, out, err = interrupt(process, terminal)
    assert (code, out) == (130, "")
    assert "fusedream-nb: Stopped; nothing was kept." in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prompt", ["-a dog", "--bad", "-x"])
def test_a_prompt_with_a_leading_dash_gets_a_hint(prompt, capsys):
    assert main(["generate", prompt]) == 2
    assert "A PROMPT that begins with a dash stands behind --." in capsys.readouterr().err


def test_a_seed_whose_bank_ships_draws_the_same_alone_and_among_others(tmp_path, monkeypatch):
    """Seed 1 has no bank, and ranks the budget's samples."""
    few = {**TINY, "start_copies": budgets.BUDGETS["quick"].start_copies}
    monkeypatch.setitem(budgets.BUDGETS, "quick", replace(budgets.BUDGETS["quick"], **few))
    for seeds in "12":
        where = ["--seeds", seeds, "--out", str(tmp_path / seeds)]
        assert main(["generate", "a photo of a blue dog", "--budget", "quick", *where]) == 0
    (alone,), among = (sorted((tmp_path / seeds).glob("*.png")) for seeds in "12")
    assert [read_record(path).M for path in among] == [10_000, TINY["M"]]
    assert (asarray(Image.open(alone)) == asarray(Image.open(among[0]))).all()
