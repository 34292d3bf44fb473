"""Runs made again from what they were asked for."""

from __future__ import annotations

from typing import Any

from fusedream_nb.models import Models

from .compose import compose
from .fuse import fusedream
from .steer import Recipe, Steerable
from .transport import transport


def make(recipe: Recipe, models: Models) -> Steerable[Any]:
    """Return a run that has not begun, of a recipe; raises what its method raises."""
    sizes, options = recipe.sizes, recipe.options
    if recipe.method == "fusedream":
        return fusedream(recipe.prompts, models, seed=recipe.seeds, budget=sizes, **options)
    if recipe.method == "compose":
        return compose(recipe.prompts[0], models, seed=recipe.seeds[0], budget=sizes, **options)
    if recipe.method == "transport":
        return transport(recipe.prompts, models, seed=recipe.seeds, budget=sizes, **options)
    raise ValueError(f"No method is called {recipe.method!r}; known are fusedream, compose, transport.")
