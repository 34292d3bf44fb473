"""R-precision against cases by hand, chance and invariances."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fusedream_nb.evaluation import metrics
from fusedream_nb.evaluation.metrics import r_precision


def test_four_pictures_by_hand(rng):
    texts = torch.eye(4)
    images = torch.tensor(
        [
            [1.0, 0.0, 0.0, 0.0],  # its own: a hit
            [0.8, 0.6, 0.0, 0.0],  # nearer to the first: a miss
            [0.0, 0.7, 0.7, 0.0],  # as near to the second: a tie, a miss
            [0.1, 0.2, 0.3, 0.4],  # nearest to its own: a hit
        ]
    )
    found = r_precision(images, texts, rng)
    assert found.hits.tolist() == [[True, False, False, True]] * 3  # all others are candidates, each time
    assert (found.mean, found.std, found.candidates) == (0.5, 0, 4)


def test_a_rival_is_met_as_often_as_it_is_drawn():
    """With m of n - 1 others drawn, one of them nearer, a picture hits with probability 1 - m / (n - 1)."""
    n, m = 21, 5
    texts = torch.eye(n)
    images = texts + 2 * texts.roll(1, 0)
    found = r_precision(images, texts, torch.Generator().manual_seed(0), mismatched=m, repeats=400)
    expected, trials = 1 - m / (n - 1), n * 400
    assert abs(found.mean - expected) < 4 * (expected * (1 - expected) / trials) ** 0.5


def test_encoders_that_know_nothing_are_right_by_chance(rng):
    images, texts = F.normalize(torch.randn(2, 600, 16, generator=rng), dim=-1)
    found = r_precision(images, texts, rng)
    assert found.candidates == 100
    assert abs(found.mean - 0.01) < 4 * (0.01 * 0.99 / 1800) ** 0.5
    assert r_precision(texts, texts, rng).mean == 1


@given(seed=st.integers(0, 1000), rows=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_a_scale_an_angle_and_the_chunks_change_nothing(seed, rows):
    rng = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(2, 9, 5, generator=rng)
    q = torch.linalg.qr(torch.randn(5, 5, generator=rng)).Q
    before, metrics.ROWS = metrics.ROWS, rows
    try:
        found = [r_precision(x @ q, texts @ q, torch.Generator()).hits for x in (images, 3 * images)]
    finally:
        metrics.ROWS = before
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], r_precision(images, texts, torch.Generator()).hits)


def test_the_repeats_are_other_draws_of_one_law(rng):
    images = F.normalize(torch.randn(300, 4, generator=rng), dim=-1)
    texts = F.normalize(images + 0.5 * torch.randn(300, 4, generator=rng), dim=-1)
    found = r_precision(images, texts, rng, mismatched=20)
    assert 0 < found.std < 0.1
    assert not torch.equal(found.hits[0], found.hits[1])
    assert str(found) == f"{100 * found.mean:.2f} ± {100 * found.std:.2f}%"


def test_shapes_that_do_not_pair_are_told(rng):
    with pytest.raises(ValueError, match=r"a caption each, not .*\[3, 2\] and \[4, 2\]"):
        r_precision(torch.zeros(3, 2), torch.zeros(4, 2), rng)
    with pytest.raises(ValueError, match="two or more"):
        r_precision(torch.zeros(1, 2), torch.zeros(1, 2), rng)
