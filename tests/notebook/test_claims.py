"""Claims: a stable line, a verdict, and numbers that can be read back."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.notebook.claims import claim, clear, most, numbers_line, read_claims, share


def test_the_line_is_stable_whatever_the_numbers(capsys):
    assert claim("fd-02", "FGSM lifts CLIP, not AugCLIP", True, lift=0.25)
    assert claim("fd-02", "FGSM lifts CLIP, not AugCLIP", True, lift=0.31)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second == "fd-02 · FGSM lifts CLIP, not AugCLIP · holds"


def test_a_claim_that_fails_says_so_and_does_not_raise(capsys):
    assert claim("fd-12", "noise", False) is False
    assert capsys.readouterr().out == "fd-12 · noise · differs\n"


@pytest.mark.parametrize("holds", [torch.tensor(True), True, torch.tensor([2.0]) > 1])
def test_the_verdict_is_a_plain_bool(holds):
    assert claim("x", "y", holds) is True


def test_the_numbers_can_be_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDREAM_CLAIMS", str(tmp_path / "claims.jsonl"))
    c = torch.tensor([3.0, 4.0], requires_grad=True)
    claim("fd-03", "goes up", True, a=0.5, b=[1, 2.5], c=c, d=torch.tensor(7))
    [told] = read_claims(tmp_path / "claims.jsonl")
    assert told.numbers == {"a": 0.5, "b": [1.0, 2.5], "c": [3.0, 4.0], "d": 7.0}


@pytest.mark.parametrize("holds", [True, False])
def test_a_claim_at_smoke_says_that_it_does_not_count(holds, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDREAM_CLAIMS", str(tmp_path / "claims.jsonl"))
    assert claim("fd-02", "goes up", holds, sizes=fd.budget("smoke"), up=1.0) is holds
    [told] = read_claims(tmp_path / "claims.jsonl")
    assert told.counts is False
    assert claim("fd-02", "goes up", holds, sizes=fd.budget("quick", figure="fd-02")) is holds
    verdict = "holds" if holds else "differs"
    assert capsys.readouterr().out.splitlines() == [
        "fd-02 · goes up · not counted",
        f"fd-02 · goes up · {verdict}",
    ]


def test_one_value_is_never_clear():
    assert not clear([1.0])
    assert clear([1.0, 1.1, 0.9])


def test_a_statement_stays_on_one_line(capsys):
    claim("fd-01", "two\n  lines", True)
    assert capsys.readouterr().out == "fd-01 · two lines · holds\n"


@pytest.mark.parametrize(("figure", "statement"), [("", "x"), ("fd-01", "  \n")])
def test_blank_claims_are_refused(figure, statement):
    with pytest.raises(ValueError, match="blank"):
        claim(figure, statement, True)


def test_the_file_gets_a_line_of_strict_json_each(tmp_path, monkeypatch):
    path = tmp_path / "claims.jsonl"
    monkeypatch.setenv("FUSEDREAM_CLAIMS", str(path))
    claim("fd-05", "Naht · ü", True, loss=[1.0, math.nan, math.inf])
    claim("fd-05", "other", False)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text("utf-8").splitlines()]
    assert rows[0] == {
        "figure": "fd-05",
        "statement": "Naht · ü",
        "holds": True,
        "numbers": {"loss": [1.0, None, None]},
        "counts": True,
    }
    assert rows[1]["holds"] is False


def test_numbers_over_seeds_show_mean_and_sample_deviation():
    lifts = [0.21, 0.25, 0.32]
    line = numbers_line(lift_clip=lifts, seeds=3)
    mean, sd = statistics.fmean(lifts), statistics.stdev(lifts)
    assert line == f"lift clip {mean:.3g} ± {sd:.2g} (n = 3) · seeds 3"
    assert numbers_line(one=[0.5], none=[]) == "one 0.5 · none none"


def test_what_is_not_finite_is_said_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEDREAM_CLAIMS", str(tmp_path / "claims.jsonl"))
    claim("fd-05", "a", False, loss=[1.0, math.inf], one=math.nan)
    [told] = read_claims(tmp_path / "claims.jsonl")
    assert numbers_line(**told.numbers) == "loss not finite (n = 2) · one nan"


def test_of_a_claim_told_twice_the_last_verdict_is_read(tmp_path, monkeypatch):
    path = tmp_path / "claims.jsonl"
    assert read_claims(path) == []
    monkeypatch.setenv("FUSEDREAM_CLAIMS", str(path))
    for figure, holds in (("fd-05", False), ("fd-06", True), ("fd-05", True)):
        claim(figure, "the same", holds, x=[1, 2])
    assert [(told.figure, told.holds) for told in read_claims(path)] == [("fd-05", True), ("fd-06", True)]
    assert read_claims(path)[0].numbers == {"x": [1.0, 2.0]}


@pytest.mark.parametrize("hits", [0, 14, 20])
def test_a_share_has_wilsons_interval(hits):
    n, z = 20, statistics.NormalDist().inv_cdf(0.975)
    middle, p = (hits + z * z / 2) / (n + z * z), hits / n
    half = z / (n + z * z) * math.sqrt(n * p * (1 - p) + z * z / 4)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    expected = f"{hits} of 20 ({p:.0%}, {100 * low:.0f}–{high:.0%})"
    assert share([True] * hits + [False] * (n - hits)) == expected
    assert share(torch.arange(n) < hits) == expected


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        share([])


def test_the_report_reads_claims_without_torch():
    code = "import sys; from fusedream_nb.reproduce import report, runner; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_clear_is_two_standard_errors_above_zero():
    values = torch.tensor([-1.0, 1.0, -1.0, 1.0]) * (3 / 4) ** 0.5  # deviation 1, mean 0: the error is 1/2
    assert clear(values + 1.001) and not clear(values + 0.999)
    assert not clear(-values - 2) and clear((3 * (values + 1.001)).tolist())


def test_most_means_that_the_whole_interval_is_above_the_level():
    assert most([True] * 15 + [False] * 5)  # 53–89%
    assert not most([True] * 14 + [False] * 6)  # 48–85%
    assert not most([True] * 3)  # 44–100%
    assert most([True] * 3, above=0.4)
    with pytest.raises(ValueError, match="at least one outcome"):
        most([])
