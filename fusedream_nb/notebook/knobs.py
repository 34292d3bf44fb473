"""The table of knobs: what each is called, what it does, and how far it goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fusedream_nb.method.barrier import RIVALS
from fusedream_nb.method.run import Run

Kind = Literal["number", "log", "whole", "choice", "lines", "numbers"]


@dataclass(frozen=True)
class Knob:
    """One control; ``low`` and ``high`` bound its slider, ``step`` is the slider's (of log10 for "log").

    The kinds "lines" and "numbers" are lists, one text a line and numbers with commas between them.
    """

    name: str
    label: str
    tooltip: str
    kind: Kind
    low: float = 0.0
    high: float = 1.0
    step: float = 0.05
    choices: Sequence[str] = ()

    def read(self, shown: Any) -> Any:  # noqa: ANN401  what a control holds
        """Return the value that a control's content stands for; ValueError where it is no number."""
        if self.kind == "lines":
            return [line.strip() for line in shown.splitlines() if line.strip()]
        if self.kind == "numbers":
            return [float(part) for part in shown.replace(",", " ").split()]
        return shown

    def write(self, value: Any) -> Any:  # noqa: ANN401
        """Return what a control shows of a value."""
        if self.kind == "lines":
            return "\n".join(value)
        return ", ".join(f"{number:g}" for number in value) if self.kind == "numbers" else value

    def around(self, value: Any) -> tuple[float, float]:  # noqa: ANN401
        """Return the slider's ends, wide enough for a value too."""
        ends = min(self.low, value), max(self.high, value)
        return (math.log10(ends[0]), math.log10(ends[1])) if self.kind == "log" else ends

    def stop(self, value: float) -> float:
        """Return the value of the slider's stop nearest to a value, which some front ends send back."""
        low, at = self.around(value)[0], math.log10(value) if self.kind == "log" else value
        at = low + round((at - low) / self.step) * self.step
        return 10**at if self.kind == "log" else at


KNOBS = (
    Knob("prompt", "Words", "What the picture should show, one text a line; the best begins anew.", "lines"),
    Knob("weights", "Weights", "How much each line of the words counts, in their order.", "numbers"),
    Knob("lr", "Learning rate", "How far Adam moves in a step; too far breaks it.", "log", 1e-4, 1.0),
    Knob("steps", "Steps", "After how many steps the run ends.", "whole", 1, 2000, 1),
    Knob("copies", "Copies", "Augmented copies a step: more are steadier, and slower.", "whole", 1, 64, 1),
    Knob("colour", "Colour", "Strength of random brightness, saturation and contrast; 0 is off.", "number"),
    Knob("translation", "Shift", "Strength of random shifts of the copies; 0 is off.", "number"),
    Knob("resize", "Resize", "Strength of random enlarging and shrinking of the copies; 0 is off.", "number"),
    Knob("cutout", "Cutout", "Side of the random hole in each copy, of half the copy's; 0 is off.", "number"),
    Knob("noise", "Noise", "Deviation of noise on the latents that are climbed.", "number", 0, 0.5, 0.01),
    Knob("rule", "Rule", "How the two goals of a composition are reconciled.", "choice", choices=RIVALS),
    Knob("beta", "β", "Share of the first goal's rise to keep (bilevel, inverse).", "number", 0, 50, 0.5),
    Knob("lam", "λ", "Weight of the words against the seam (linear).", "number"),
    Knob("alpha", "Box", "Side of the foreground's box, a share of the picture's.", "number", 0.3, 0.9),
    Knob("x", "Box, across", "Where the box stands: 0 is left, 1 is right.", "number"),
    Knob("y", "Box, down", "Where the box stands: 0 is at the top, 1 at the bottom.", "number"),
    Knob("epsilon", "ε", "Blur of the plan, in units of the costs' spread.", "log", 0.01, 10.0),
    Knob("patches", "Patches", "Random patches a step that are matched with the words.", "whole", 1, 128, 1),
)  # fmt: skip
SEED = Knob("seed", "Next seed", "The seed of the next run; Reset begins it.", "whole", 0, 9999, 1)


def knobs_of(run: Run[Any]) -> list[Knob]:
    """Return the knobs that a run has, in the table's order."""
    return [knob for knob in KNOBS if knob.name in run.knobs]
