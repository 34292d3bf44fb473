"""The report card's arithmetic on cases known by hand, and the card on a few fresh pictures."""

from __future__ import annotations

import pytest
import torch

from fusedream_nb.models import Models
from fusedream_nb.models.stickers.nouns import ENCODER_HELD_OUT
from training import report
from training.vqgan import LAWS


def test_precision_of_a_set_with_itself_and_with_a_far_one() -> None:
    points = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert report._within_radii(points, points) == 1
    assert report._within_radii(points + 100, points) == 0


def test_precision_counts_the_balls_by_hand() -> None:
    centres = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])  # third neighbours 3, 2, 2, 2, 3 away
    points = torch.tensor([[-2.9], [-3.1], [6.9], [7.1]])
    assert report._within_radii(points, centres, k=3) == 0.5


def test_held_out_scenes_are_the_held_out_pairs() -> None:
    scenes = report._held_out(200, torch.Generator().manual_seed(1))
    from fusedream_nb.models.stickers.nouns import COLOURS, NOUNS

    shown = {
        (COLOURS[c], NOUNS[n])
        for c, n in zip(scenes.colour[:, 0].tolist(), scenes.noun[:, 0].tolist(), strict=True)
    }
    assert shown == set(ENCODER_HELD_OUT)


@pytest.mark.parametrize("which", ["clip", "judge"])
def test_an_encoder_reads_far_better_than_chance(models: Models, which: str) -> None:
    card = report.encoder_card(getattr(models, which), 120, seed=77)
    assert card["noun"] > 10 * 100 / 28
    assert card["colour"] > 80
    assert card["background"] > 80
    assert card["held-out pair"] > 85
    assert all(0 <= value <= 100 for value in card.values())


def test_lpips_orders_distortions(models: Models) -> None:
    assert report.perceptual_card(models, 40, seed=78)["order of distortions"] > 90


def test_every_number_of_the_report_has_a_bar(models: Models) -> None:
    measured = report.report(models, seed=79, n=120)
    missing = set(LAWS) - set(report.shipped_vqgans())
    free = {"clip: two nouns of pastes"} | {name for name in measured if name.startswith("third")}
    asked = set(measured) - free  # the third is there to check the judge, whom pastes are asked of
    assert asked == {name for name in report.BARS if name.partition(":")[0] not in missing}
