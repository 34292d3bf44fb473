"""The table of knobs, and the controls (ipywidgets) that set them and follow the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import ipywidgets as widgets

from fusedream_nb.method.barrier import RULES
from fusedream_nb.method.run import Run

from .session import Session

Kind = Literal["number", "log", "whole", "choice", "lines", "numbers"]
SLIDERS = ("number", "log", "whole")
CONTROLS = {
    "number": widgets.FloatSlider, "log": widgets.FloatLogSlider, "whole": widgets.IntSlider,
    "choice": widgets.Dropdown, "lines": widgets.Textarea, "numbers": widgets.Text,
}  # fmt: skip
TOOLTIP = "tooltip" if "tooltip" in widgets.Text.class_trait_names() else "description_tooltip"  # 8, or 7
WIDE = widgets.Layout(width="400px")


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
    Knob("prompt", "Words", "What the picture should show, one text a line; the best begins again.", "lines"),
    Knob("weights", "Weights", "How much each line of the words counts, in their order.", "numbers"),
    Knob("lr", "Learning rate", "How far Adam moves in a step; too far breaks it.", "log", 1e-4, 1.0),
    Knob("steps", "Steps", "After how many steps the run ends.", "whole", 1, 2000, 1),
    Knob("copies", "Copies", "Augmented copies a step: more are steadier, and slower.", "whole", 1, 64, 1),
    Knob("colour", "Colour", "Strength of random brightness, saturation and contrast; 0 is off.", "number"),
    Knob("translation", "Shift", "Strength of random shifts of the copies; 0 is off.", "number"),
    Knob("resize", "Resize", "Strength of random enlarging and shrinking of the copies; 0 is off.", "number"),
    Knob("cutout", "Cutout", "Side of the random hole in each copy, of half the copy's; 0 is off.", "number"),
    Knob("noise", "Noise", "Standard deviation of noise on the latents.", "number", 0, 0.5, 0.01),
    Knob("rule", "Rule", "How a composition's two goals are reconciled.", "choice", choices=tuple(RULES)),
    Knob("beta", "β", "Share of the first goal's rise to keep (bilevel, inverse).", "number", 0, 50, 0.5),
    Knob("lam", "λ", "Weight of the words against the seam (linear).", "number"),
    Knob("alpha", "Box", "Side of the foreground's box, a share of the picture's.", "number", 0.3, 0.9),
    Knob("x", "Box, across", "Where the box stands: 0 is left, 1 is right.", "number"),
    Knob("y", "Box, down", "Where the box stands: 0 is at the top, 1 at the bottom.", "number"),
    Knob("epsilon", "ε", "Blur of the plan, in units of the costs' scale.", "log", 0.01, 10.0),
    Knob("patches", "Patches", "Random patches a step that are matched with the words.", "whole", 1, 128, 1),
)  # fmt: skip
SEED = Knob("seed", "Next seed", "The seed of the next run; Reset begins it.", "whole", 0, 9999, 1)


def knobs_of(run: Run[Any]) -> list[Knob]:
    """Return the knobs that a run has, in the table's order."""
    return [knob for knob in KNOBS if knob.name in run.knobs]


class Controls:
    """A control for each of a session's knobs, by name, in ``widgets``.

    A control hands one value over and does nothing else; it is taken between two steps.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._seen = {**session.run.wanted, SEED.name: session.seed}  # what was wanted when last looked at
        self._shown = dict(self._seen)  # what the controls stand for
        self._drawn: dict[str, float] = {}  # what a front end may send back when it draws a slider
        self.widgets = {knob.name: self._made(knob) for knob in [*knobs_of(session.run), SEED]}

    def _made(self, knob: Knob) -> Any:  # noqa: ANN401  one of ipywidgets' classes
        value = self._shown[knob.name]
        shown: dict[str, Any] = {"value": knob.write(value), "description": knob.label, TOOLTIP: knob.tooltip}
        if knob.kind in SLIDERS:
            low, high = knob.around(value)
            shown |= {"min": low, "max": high, "step": knob.step, "continuous_update": True}
        if knob.kind in ("number", "log"):
            shown["readout_format"] = ".2g"
        elif knob.kind in ("lines", "numbers"):
            shown["continuous_update"] = False
        elif knob.kind == "choice":
            shown["options"] = list(knob.choices)
        control = CONTROLS[knob.kind](**shown, layout=WIDE, style={"description_width": "110px"})
        self._expect(knob)
        control.observe(partial(self._heard, knob), "value")
        return control

    def _expect(self, knob: Knob) -> None:
        if knob.kind in SLIDERS:
            self._drawn[knob.name] = knob.stop(self._shown[knob.name])

    def _heard(self, knob: Knob, change: dict[str, Any]) -> None:
        try:
            value = knob.read(change["new"])
        except ValueError:
            self.session.message = f"{knob.label}: {change['new']!r} is not a list of numbers."
            return
        if value == self._shown[knob.name]:
            return
        drawn = self._drawn.pop(knob.name, None)
        if drawn is None or not math.isclose(value, drawn, rel_tol=1e-6, abs_tol=1e-9):
            self._shown[knob.name] = value
            self.session.post(partial(self._set, knob, value))

    def _set(self, knob: Knob, value: Any) -> None:  # noqa: ANN401  a number, a text, or several
        self._seen[knob.name] = value
        if knob is SEED:
            self.session.seed = value
        else:
            self.session.set(**{knob.name: value})

    def follow(self) -> None:
        """Move the controls of knobs that somebody else has set, or whose values were not taken."""
        for knob in knobs_of(self.session.run):
            value = self.session.run.wanted[knob.name]
            if value != self._seen[knob.name]:
                self._seen[knob.name] = value
                if value != self._shown[knob.name]:
                    self._shown[knob.name] = value
                    self._expect(knob)
                    control = self.widgets[knob.name]
                    if knob.kind in SLIDERS:  # its ends move where the value lies beyond them
                        low, high = knob.around(value)
                        control.min, control.max = min(low, control.min), max(high, control.max)
                    control.value = knob.write(value)
