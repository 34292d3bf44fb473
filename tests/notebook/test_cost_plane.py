"""The cost plane: a picture with its text, arrows that descend, errors before any drawing."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from fusedream_nb.notebook import show

PROMPTS = ["a cat", "a dog", "a fish"]
COSTS = torch.tensor([[0.2, 0.8, 0.5], [0.8, 0.3, 0.5]])
TANGENTS = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.2, 0.0]])


def test_a_panel_shows_each_patch_once_and_pulls_it_down_its_costs():
    ax = Figure().subplots()
    show._panel(ax, COSTS[:, :2], -TANGENTS[:, :2])
    quivers = [c for c in ax.collections if hasattr(c, "U")]
    np.testing.assert_allclose(np.concatenate([q.U for q in quivers]), [-0.1, 0.0], atol=1e-7)
    np.testing.assert_allclose(np.concatenate([q.V for q in quivers]), [0.0, -0.2], atol=1e-7)
    np.testing.assert_allclose(np.concatenate([q.XY for q in quivers]), COSTS[:, :2])


def test_panels_become_one_picture_with_its_text():
    panels = {"transport": (COSTS, TANGENTS), "mean": (COSTS, TANGENTS * 0)}
    drawn = show.cost_plane(panels, PROMPTS, pair=(0, 2), columns=1, alt="Two planes.", world="sticker world")
    image = Image.open(io.BytesIO(drawn.png))
    assert image.height > 1.5 * image.width
    assert drawn.alt == "Two planes."


def test_no_panel_no_text_and_no_such_prompt_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        show.cost_plane({}, PROMPTS, alt="None.")
    with pytest.raises(ValueError, match="alternative text"):
        show.cost_plane({"": (COSTS, TANGENTS)}, PROMPTS, alt=" ")
    with pytest.raises(ValueError, match="not among"):
        show.cost_plane({"": (COSTS, TANGENTS)}, PROMPTS, pair=(0, 3), alt="One.")
