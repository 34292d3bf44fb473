"""What the curves of a panel show of a step's first picture."""

from __future__ import annotations

from collections.abc import Sequence

from fusedream_nb.method.duet import ComposeStep
from fusedream_nb.method.optimise import Step
from fusedream_nb.method.transport import TransportStep


def scores(step: Step) -> dict[str, float]:
    """Return what is climbed, by name: the noisy score and the best on fixed augmentations."""
    return {"score": float(step.score[0]), "best": float(step.best_score[0])}


def losses(step: Step, prompts: Sequence[str] = ()) -> dict[str, float]:
    """Return what is to fall: a composition's perceptual loss, or what moving each prompt's mass costs.

    A prompt's cost is the mean of its patches' costs, each weighted by the plan's mass between the two.
    Empty for a method without a loss.
    """
    if isinstance(step, ComposeStep):
        return {"LPIPS under the box": float(step.loss[0])}
    if isinstance(step, TransportStep):
        plan, costs = step.plan[0], step.costs[0]  # [patches, m]
        each = ((plan * costs).sum(0) / plan.sum(0)).tolist()
        names = prompts if len(prompts) == len(each) else [f"prompt {i + 1}" for i in range(len(each))]
        return dict(zip(names, each, strict=True))
    return {}
