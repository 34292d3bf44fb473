"""`fusedream-nb reproduce` on small notebooks, run by papermill in kernels of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import psutil
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from fusedream_nb.cli import main
from fusedream_nb.reproduce import report, runner

HOSTILE = '<script>alert(1)</script> | `$x$` & "q" ![x](javascript:y) **b**'
DRAW = """
from fusedream_nb.notebook.claims import claim
from fusedream_nb.notebook.show import blank, finish

canvas = blank(2, 1, ALT)
canvas.subplots().plot([SEED, 2])
finish(canvas, ALT, FIGURE, plot=True)
"""
PASSES = [
    DRAW,
    "held = b'x' * 250_000_000\nprint(BUDGET, MODEL, DEVICE, SEED)",
    f"claim('fd-02', {HOSTILE!r}, True, lift=[0.1, 0.2, 0.3], seed=SEED)\n"
    "claim('fd-02', 'noise does nothing', False, drop=[1.0, 2.0])\n"
    "claim('start', 'of no figure', True)",
]
FAILS = [
    DRAW,
    f"claim('fd-03', 'told before the end', True)\nraise ValueError({HOSTILE!r})",
    "print('never')",
]
WAITS = [
    "import time\nfrom pathlib import Path\nPath(HERE, 'begun').touch()\n"
    "while not Path(HERE, 'go').exists(): time.sleep(0.05)",
    DRAW,
]


SHOWN = [
    ("fd-02", HOSTILE, "holds"),
    ("fd-02", "noise does nothing", "differs"),
    ("start", "of no figure", "holds"),
]


def write(folder, name, sources, shown=(), tag=None, **parameters):
    """Write a notebook of code cells called c0, c1, …, after one of parameters; the last shows claims."""
    given = {"SEED": 0, "BUDGET": None, "MODEL": None, "DEVICE": None, "ALT": HOSTILE, **parameters}
    first = "\n".join(f"{key} = {value!r}" for key, value in given.items())
    cells = [nbformat.v4.new_code_cell(first, metadata={"tags": ["parameters"]}, id="parameters")]
    cells += [nbformat.v4.new_code_cell(text, id=f"c{i}") for i, text in enumerate(sources)]
    lines = "".join(f"{' · '.join(claim)}\n" for claim in shown)
    cells[-1].outputs = [nbformat.v4.new_output("stream", text=f"a line\n{lines}")]
    cells[-1].metadata["tags"] = [tag] if tag else []
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Notebooks of which one passes, one fails and one waits to be let go."""
    folder = tmp_path_factory.mktemp("notebooks")
    write(folder, "01_passes.ipynb", PASSES, SHOWN, FIGURE="fd-02")
    write(folder, "02_fails.ipynb", FAILS, FIGURE="fd-03")
    write(folder, "03_waits.ipynb", WAITS, FIGURE="fd-15", HERE=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEDREAM_NOTEBOOKS", str(folder))
        patch.setenv("FUSEDREAM_DEVICE", "cpu")
        yield folder


COMMAND = ("reproduce", "--budget", "paper", "--seed", "7", "--out")


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory):
    """What the notebook that passes and the one that fails leave, run side by side."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert main([*COMMAND, str(out), "--jobs", "2", "fd-02", "fd-03"]) == 1
    return out


def result(out, name):
    return report.read(out / f"{name}.json")


def test_a_notebook_that_passes_leaves_figure_notebook_and_result(out):
    told = result(out, "01_passes")
    assert told.failure is None
    assert [row["file"] for row in told.figures] == ["fd-02.png", "fd-02.svg"]
    assert {row["alt"] for row in told.figures} == {HOSTILE}
    assert told.seconds > 0
    assert 250e6 < told.peak < 1.5e9
    assert (out / "fd-02.png").exists()
    assert told.is_whole(out)
    (out / "fd-02.svg").rename(out / "elsewhere.svg")
    assert not told.is_whole(out)
    (out / "elsewhere.svg").rename(out / "fd-02.svg")


def test_the_parameters_are_set_in_the_notebook(out):
    ran = nbformat.read(out / "01_passes.ipynb", as_version=4)
    printed = [output.text for cell in ran.cells for output in cell.get("outputs", []) if "text" in output]
    assert "paper stickers cpu 7\n" in printed


def test_nothing_else_is_left(out):
    made = {"index.html", "REPORT.md", "claims.json", "01_passes.json", "01_passes.ipynb", "02_fails.json"}
    figures = {"fd-02.png", "fd-02.svg", "fd-03.png", "fd-03.svg"}
    assert {path.name for path in out.iterdir()} == made | figures | {"02_fails.ipynb"}
    assert not kernels(out)


def test_the_figure_carries_what_made_it(out, capsys):
    assert main(["show", "--json", str(out / "fd-02.png")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["figure"], record["alt"]) == ("fd-02", HOSTILE)
    assert (record["budget"], record["seed"], record["notebook"]) == ("paper", 7, "01_passes.ipynb")
    assert {key: record[key] for key in result(out, "01_passes").made_by} == result(out, "01_passes").made_by
    assert any(name.startswith("stickers/") for name in record["weights"])
    assert main(["replay", str(out / "fd-02.png")]) == 2
    assert "fusedream-nb reproduce fd-02" in capsys.readouterr().err


def test_a_failing_notebook_names_its_cell_and_keeps_what_it_had(out):
    told = result(out, "02_fails")
    assert told.failure["cell"] == "c1"
    assert told.failure["error"] == f"ValueError: {HOSTILE}"
    assert "raise ValueError" in told.failure["source"]
    assert "\x1b" not in told.failure["traceback"]
    assert told.drew("fd-03")
    assert [claim["statement"] for claim in told.claims] == ["told before the end"]


def test_claims_are_kept_with_their_numbers_and_verdicts(out):
    told = json.loads((out / "claims.json").read_text("utf-8"))
    assert [(row["figure"], row["holds"]) for row in told] == [
        ("fd-02", True), ("fd-02", False), ("start", True), ("fd-03", True),
    ]  # fmt: skip
    assert told[0]["statement"] == HOSTILE
    assert told[0]["numbers"] == {"lift": [0.1, 0.2, 0.3], "seed": 7.0}


class Page(HTMLParser):
    """The tags of a page, the texts of its elements, and the alternative texts of its pictures."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.alts, self.links = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        given = dict(attributes)
        if tag == "img":
            self.alts.append(given.get("alt"))
        self.links += [given[name] for name in ("href", "src") if name in given]

    def handle_data(self, data):
        self.texts.append(data)


def pages(out):
    """Both reports as HTML: the page itself, and the Markdown as a reader of it would make it."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    return [
        Page((out / "index.html").read_text("utf-8")),
        Page(markdown.render((out / "REPORT.md").read_text("utf-8"))),
    ]


def test_the_reports_say_it_all_and_run_nothing(out):
    for page in pages(out):
        assert not page.tags & {"script", "em", "b", "q"}
        assert page.alts == [HOSTILE, HOSTILE]
        assert set(page.links) <= {path.name for path in out.iterdir()}
        assert HOSTILE in page.texts
        said = " ".join("".join(page.texts).split())
        assert "lift 0.2 ± 0.1 (n = 3) · seed 7" in said
        assert "drop 1.5 ± 0.71 (n = 2)" in said
        assert "noise does nothing" in said
        assert "2 notebooks, 1 of them failed. Claims: 3 hold, 1 differ." in said
        assert f"It failed in the cell c1: ValueError: {HOSTILE}" in said
        assert "fusedream-nb reproduce fd-02 --model stickers --budget paper --device cpu --seed 7" in said
        assert {"holds", "differs"} <= set(page.texts)
        assert "Also in this notebook" in page.texts


def test_a_claim_that_differs_is_no_failure_and_what_is_done_is_not_run_again(out, tmp_path, capsys):
    done, again = result(out, "01_passes"), tmp_path / "out"
    shutil.copytree(out, again)
    assert main([*COMMAND, str(again), "fd-02", "--json"]) == 0
    told, said = capsys.readouterr()
    assert "01_passes: done before" in said
    assert json.loads(told)[0]["finished"] == done.finished
    assert main([*COMMAND, str(again), "fd-02"]) == 0
    assert re.search(r"fd-02 +drawn +1 hold, 1 differ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("shown", "tag", "surprises"),
    [
        (SHOWN, None, []),
        ([(*SHOWN[0][:2], "differs"), *SHOWN[1:]], None, ["holds, committed differs"]),
        (SHOWN[:1], None, ["noise does nothing: differs, committed nothing", "holds, committed nothing"]),
        ([*SHOWN, ("fd-02", "gone", "holds")], None, ["fd-02 · gone: nothing, committed holds"]),
        ([(*claim[:2], "holds") for claim in SHOWN], "close-call", []),
    ],
)
def test_verdicts_are_compared_with_the_committed_ones(out, tmp_path, shown, tag, surprises):
    write(tmp_path, "01_passes.ipynb", ["", ""], shown, tag)
    found = result(out, "01_passes").surprises(tmp_path / "01_passes.ipynb")
    assert len(found) == len(surprises)
    assert all(one.endswith(end) for one, end in zip(found, surprises, strict=True))


def test_check_is_a_line_for_each_notebook_and_an_exit_code(folder, out, tmp_path, capsys):
    again = tmp_path / "out"
    shutil.copytree(out, again)
    assert main([*COMMAND, str(again), "01", "--check"]) == 0
    assert capsys.readouterr().out == "01_passes: as committed (2 hold, 1 differ)\n"
    path, told = again / "01_passes.json", result(again, "01_passes")
    path.write_text(json.dumps({**asdict(told), "claims": told.claims[1:]}))
    assert main([*COMMAND, str(again), "01", "--check"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("01_passes: not as committed: fd-02 · <script>")
    assert main([*COMMAND, str(again), "02", "--check", "--jobs", "2"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("02_fails: failed in the cell c1: ValueError")


def test_another_setting_or_a_changed_notebook_is_another_result(folder, out, tmp_path):
    path = folder / "01_passes.ipynb"
    chosen = runner.settings(size="paper", device="cpu", seed=7)
    told = result(out, "01_passes")
    assert runner._made_by(path, chosen) == told.made_by
    assert runner._made_by(path, runner.settings(size="paper", device="cpu", seed=8)) != told.made_by
    write(tmp_path, "01_passes.ipynb", ["1"])
    assert runner._made_by(tmp_path / "01_passes.ipynb", chosen) != told.made_by


UNLUCKY = """
import os, sys
from pathlib import Path
tries = Path(__file__).with_name("tries")
with tries.open("a") as file:
    file.write("x")
if len(tries.read_text()) <= LOST:
    sys.exit("Address already in use")
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *sys.argv[1:]])
"""


@pytest.mark.parametrize(("lost", "tries"), [(1, 2), pytest.param(9, 3, marks=pytest.mark.heavy)])
def test_a_kernel_that_does_not_come_up_is_started_again(tmp_path, monkeypatch, lost, tries):
    """One that loses its ports to another is tried anew; one that never starts is a failure."""
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "start.py").write_text(UNLUCKY.replace("LOST", str(lost)))
    argv = [sys.executable, str(folder / "start.py"), "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "P", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    write(tmp_path, "00_x.ipynb", ["print(6 * 7)"])
    chosen = runner.settings(size="paper", device="cpu")
    (told,) = runner.run([tmp_path / "00_x.ipynb"], chosen, tmp_path / "out")
    assert (folder / "tries").read_text() == "x" * tries
    assert (told.failure is None) == (lost < tries)
    assert told.failure is None or "died" in told.failure["error"]
    assert not kernels(tmp_path)


def kernels(folder):
    """Return the processes that work in a folder or were given it: papermill's and the kernels."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if str(folder) in " ".join([process.cwd(), *process.cmdline()]):
                found.append(process)
    return found


def until(condition, seconds=60):
    """Wait for something; return it, or what it was at the end."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_interrupted_and_killed_runs_leave_no_kernel_and_go_on(folder, out, tmp_path):
    here = tmp_path / "out"
    shutil.copytree(out, here)
    command = [sys.executable, "-m", "fusedream_nb", *COMMAND, str(here), "fd-02", "fd-15"]

    def start():
        (folder / "begun").unlink(missing_ok=True)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert until((folder / "begun").exists)
        return process

    process = start()  # killed without a word
    assert len([k for k in kernels(here) if "ipykernel_launcher" in k.cmdline()]) == 1
    process.kill()
    process.communicate()
    assert until(lambda: not kernels(here), 30)
    assert list(here.glob(".*.part"))

    process = start()  # Ctrl-C
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "Stopped; 1 of 2 notebooks have run" in said
    assert "Traceback" not in said
    assert not kernels(here)
    assert not list(here.glob(".*"))
    assert result(here, "03_waits") is None

    (folder / "go").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "01_passes: done before" in done.stderr
    assert "03_waits: running" in done.stderr
    assert re.search(r"fd-15 +drawn", done.stdout)
    assert result(here, "01_passes").finished == result(out, "01_passes").finished


BAD = [
    (["fd-99"], "No figure is called 'fd-99'"),
    ([], "FIGURE"),
    (["ot-01"], "ot-01 is drawn by notebook 11"),
    (["fd-02", "--budget", "huge"], "paper"),
    (["fd-02", "--model", "dalle"], "stickers"),
    (["fd-02", "--model", "biggan-deep-512"], "not on this machine"),
    (["fd-02", "--device", "tpu"], "auto, cpu, cuda, mps"),
    (["fd-02", "--jobs", "0"], "--jobs"),
    (["fd-02", "--out", "file/below"], "Nothing can be written"),
]


@pytest.mark.parametrize(("arguments", "reason"), BAD, ids=lambda value: " ".join(value)[:40])
def test_bad_input_gets_one_sentence_and_exit_code_2(
    folder, tmp_path, monkeypatch, capsys, arguments, reason
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path / "cache"))
    Path("file").write_text("text")
    assert main(["reproduce", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"fusedream-nb: [^\n]+\n", err), err
    assert reason in err
    assert os.listdir() == ["file"]


def test_settings_are_read_from_the_environment_and_folders_made_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDREAM_BUDGET", "paper")
    monkeypatch.setenv("FUSEDREAM_DEVICE", "cpu")
    assert runner.settings() == runner.Settings("stickers", "paper", "cpu")
    assert runner.settings().parameters() == {"MODEL": "stickers", "BUDGET": "paper", "DEVICE": "cpu"}
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "stickers-mine", "stickersets/mine", "biggan-256"):  # as `load` looks for them
        Path(name).mkdir(parents=True, exist_ok=True)
        path = str(tmp_path / name)
        assert runner.settings(name, "quick", "auto", 3) == runner.Settings(path, "quick", "auto", 3)


def scratch(folder, name, *drawn):
    """Make a scratch folder as a process that was killed leaves it."""
    folder = folder / name
    (folder / "figures").mkdir(parents=True)
    (folder / "log.txt").write_text("the last words")
    for file in drawn:
        Image.new("RGB", (2, 2)).save(folder / "figures" / file)
    return folder


def test_a_process_that_died_is_a_failure_and_old_figures_go_with_their_result(tmp_path):
    first = report.collect("01_x", {}, scratch(tmp_path, "a", "fd-02.png", "fd-02-b.png"), -9, tmp_path)
    assert first.failure["error"] == "The notebook's process ended with code -9."
    assert first.failure["traceback"] == "the last words"
    assert {path.name for path in tmp_path.iterdir()} == {"01_x.json", "fd-02.png", "fd-02-b.png"}
    assert result(tmp_path, "01_x") == first
    report.collect("01_x", {}, scratch(tmp_path, "b", "fd-02.png"), -9, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"01_x.json", "fd-02.png"}


def test_a_figure_cut_off_or_without_its_other_half_is_kept_without_words(tmp_path):
    folder = scratch(tmp_path, "a", "fd-02.png", "fd-03.png")
    for name, file in (("fd-02.png", "fd-02.png"), ("fd-04.svg", "fd-03.png")):
        (folder / "figures" / name).write_bytes((folder / "figures" / file).read_bytes()[:20])
    found = report.collect("01_x", {}, folder, -9, tmp_path)
    assert [row["alt"] for row in found.figures] == ["", "", ""]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"notebook": 1}', "\x00"])
def test_what_is_no_result_is_none(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    assert report.read(tmp_path / "x.json") is None
    assert report.read(tmp_path / "none.json") is None
