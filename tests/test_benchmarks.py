"""What the benchmarks share: rows that go on where they were, starts from a pool, intervals."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from fusedream_nb.models.generators import Latent
from fusedream_nb.notebook.measure import start_score

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import copies
import rows

SETTINGS = {"sizes": {"M": 3}, "prompts": ("a", "b")}


def square(number):
    return {"square": number * number}


def test_rows_go_on_after_half_a_line(tmp_path):
    rows.fill(tmp_path, SETTINGS, {"two": 2, "three": 3}, square)
    file = tmp_path / "rows.jsonl"
    file.write_text(file.read_text()[:-4])  # killed in the middle of the last line
    asked = []

    def measure(number):
        asked.append(number)
        return square(number)

    found = rows.fill(tmp_path, SETTINGS, {"two": 2, "three": 3, "four": 4}, measure)
    assert asked == [3, 4]
    assert [row["square"] for row in found] == [4, 9, 16]
    assert [row["item"] for row in rows.finished(file, SETTINGS)] == ["two", "three", "four"]


def test_rows_of_other_settings_are_refused_by_name(tmp_path):
    rows.fill(tmp_path, SETTINGS, {"two": 2}, square)
    with pytest.raises(SystemExit, match=r"other settings \(sizes\)"):
        rows.fill(tmp_path, {**SETTINGS, "sizes": {"M": 4}}, {"two": 2}, square)


def test_the_best_are_taken_from_their_part_of_the_pool_alone():
    scores = torch.tensor([[9.0, 0.0], [1.0, 3.0], [2.0, 1.0], [3.0, 2.0]])
    latents = Latent(torch.arange(4.0)[:, None])
    assert rows.best(latents, scores, 2, 4).z[..., 0].tolist() == [[0, 3], [1, 3]]
    assert rows.best(latents, scores, 2, 3, first=1).z[..., 0].tolist() == [[3, 2], [1, 3]]
    assert rows.best(latents, scores, 1, 2, first=3).z[..., 0].tolist() == [[0], [3]]  # counted round


def test_a_pool_s_scores_are_those_of_its_pictures(models):
    prompts = ["a photo of a dog", "a photo of a red car"]
    latents, scores = rows.pool(models, prompts, 4, 0)
    some = torch.tensor([0, 17, len(latents) - 1])
    with torch.no_grad():
        pictures = models.generator.decode(latents[some])
        looked = start_score(models.clip, prompts, 4).table(pictures, torch.Generator())
    torch.testing.assert_close(scores[some], looked, atol=2e-3, rtol=0)


def test_the_interval_of_a_mean_is_student_s():
    assert rows.mean([1.0, 2.0, 3.0]) == "2 [-0.484, 4.48]"  # 4.303 deviations over √3


def test_equal_arithmetic_and_when_a_curve_reaches_a_goal():
    assert copies.steps_of(12, 300) == 300
    assert copies.steps_of(50, 300) == round(300 * 112.8 / 280)
    curve = [0.2, 0.4, 0.5, 0.6]
    assert copies.reached(curve, 0.6) == 1
    assert copies.reached(curve, 0.45) == pytest.approx(0.625)
    assert copies.reached(curve, 0.3) == pytest.approx(0.375)
    assert copies.reached(curve, 0.1) == pytest.approx(0.125)
    assert copies.reached(curve, 0.7) is None
