"""Seeds come as Python's, NumPy's and PyTorch's integers, alone or many; anything else gets a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusedream_nb.method.config import configure, whole


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [
        (3, [3]),
        (np.int64(3), [3]),
        (np.uint8(255), [255]),
        (np.array(7), [7]),
        (np.arange(3), [0, 1, 2]),
        (torch.tensor(5), [5]),
        (torch.tensor([2, 4]), [2, 4]),
        (range(2, 4), [2, 3]),
        ([np.int32(1), 2], [1, 2]),
        (2**63 - 1, [2**63 - 1]),
    ],
    ids=str,
)
def test_any_integer_is_a_seed(seed: object, seeds: list[int]) -> None:
    assert whole(seed) == seeds
    config = configure("fusedream", "a dog", seed, "quick", {})
    assert config.seeds == seeds and config.prompts == ["a dog"] * len(seeds)
    assert all(type(each) is int for each in config.seeds)  # a record holds them as JSON


@pytest.mark.parametrize(
    "seed", [1.5, "3", None, Path("3"), np.float32(2), [1, 2.5], torch.tensor(0.5), -1, 2**63, []], ids=str
)
def test_anything_else_is_refused_in_a_sentence(seed: object) -> None:
    with pytest.raises(ValueError, match="A seed is a whole number"):
        configure("fusedream", "a dog", seed, "quick", {})
