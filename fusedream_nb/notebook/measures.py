"""What the curves of a panel show of a step's first picture."""

from __future__ import annotations

from fusedream_nb.method.run import Step


def scores(step: Step) -> dict[str, float]:
    """Return what is climbed, by name: the noisy score and the best on fixed augmentations."""
    return {"score": float(step.score[0]), "best": float(step.best_score[0])}


def losses(step: Step) -> dict[str, float]:
    """Return what is to fall, by name; empty for a method without a loss."""
    return {name: float(values[0]) for name, values in step.losses().items()}
