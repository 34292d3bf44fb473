"""The knobs of a session as widgets: they steer the run, and follow it where somebody else does."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import ipywidgets as widgets

from .knobs import SEED, Knob, knobs_of
from .live import Session

SLIDERS = ("number", "log", "whole")
TOOLTIP = "tooltip" if "tooltip" in widgets.Text.class_trait_names() else "description_tooltip"  # 8, or 7
WIDE = widgets.Layout(width="400px")


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
        control = control_of(knob, self._shown[knob.name])
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
            self.session.post(partial(self._turn, knob, value))

    def _turn(self, knob: Knob, value: Any) -> None:  # noqa: ANN401  a number, a text, or several
        self._seen[knob.name] = value
        if knob is SEED:
            self.session.seed = value
        else:
            self.session.turn(**{knob.name: value})

    def follow(self) -> None:
        """Move the controls of knobs that somebody else has turned, or whose values were not taken."""
        for knob in knobs_of(self.session.run):
            value = self.session.run.wanted[knob.name]
            if value != self._seen[knob.name]:
                self._seen[knob.name] = value
                if value != self._shown[knob.name]:
                    self._shown[knob.name] = value
                    self._expect(knob)
                    _move(self.widgets[knob.name], knob, value)


def control_of(knob: Knob, value: Any) -> Any:  # noqa: ANN401  one of ipywidgets' classes
    """Return a control that shows a knob's value."""
    shown: dict[str, Any] = {
        "value": knob.write(value),
        "description": knob.label,
        TOOLTIP: knob.tooltip,
        "layout": WIDE,
        "style": {"description_width": "110px"},
    }
    if knob.kind in SLIDERS:
        low, high = knob.around(value)
        shown |= {"min": low, "max": high, "step": knob.step, "continuous_update": True}
    kinds = {
        "number": widgets.FloatSlider, "log": widgets.FloatLogSlider, "whole": widgets.IntSlider,
        "choice": widgets.Dropdown, "lines": widgets.Textarea, "numbers": widgets.Text,
    }  # fmt: skip
    if knob.kind == "choice":
        shown["options"] = list(knob.choices)
    elif knob.kind in ("lines", "numbers"):
        shown["continuous_update"] = False
    elif knob.kind in ("number", "log"):
        shown["readout_format"] = ".2g"
    return kinds[knob.kind](**shown)


def _move(control: Any, knob: Knob, value: Any) -> None:  # noqa: ANN401
    """Let a control show a value, its ends moved where the value lies beyond them."""
    if knob.kind in SLIDERS:
        low, high = knob.around(value)
        control.min, control.max = min(low, control.min), max(high, control.max)
    control.value = knob.write(value)
