"""A session's panel of widgets (ipywidgets 7.7 and later): the picture, curves, buttons and knobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from html import escape
from io import BytesIO
from typing import Any

import ipywidgets as widgets
import torch
from torchvision.utils import save_image

from . import curve
from .knobs import SEED, Knob, knobs_of
from .live import Session

OFTEN = 0.2  # seconds between two pictures, at least
SHARE, LONGEST = 25, 2.0  # and so many times what drawing one takes: 4 % of the time; but no longer
SHOWN = 288  # pixels that a picture has on the screen
MARKS = 60  # of the knobs' changes, the last ones
WIDE = widgets.Layout(width="420px")


class Panel:
    """What shows a session and steers it; ``widget`` is what a notebook displays.

    A control writes one value and does nothing else; everything else happens between two steps.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.controls = session, {knob.name: _control(knob, session) for knob in _all(session)}
        self.picture = widgets.Image(format="png", layout=widgets.Layout(width="auto", height=f"{SHOWN}px"))
        self.curves, self.state = widgets.HTML(), widgets.HTML(value="choosing a start …")
        self.buttons = {name: _button(name, tip, act) for name, tip, act in self._actions()}
        self.widget = widgets.VBox([
            self.picture,
            widgets.HBox(list(self.buttons.values()), layout=widgets.Layout(flex_flow="row wrap")),
            self.state,
            widgets.HBox(
                [widgets.VBox(list(self.controls.values())), self.curves],
                layout=widgets.Layout(flex_flow="row wrap"),
            ),
        ])  # fmt: skip
        self._due, self._times = 0.0, [(0, time.perf_counter())]
        session.watchers.append(self.update)

    def _actions(self) -> list[tuple[str, str, Callable[[], object]]]:
        do = self.session
        return [
            ("Play", "Go on", do.play),
            ("Pause", "Wait after this step", do.pause),
            ("Step", "Make one step, and wait", do.step_once),
            ("Stop", "End the run; its memory is let go", do.stop),
            ("Save", "Save the picture with everything that made it", do.save),
            ("Reset", "Begin again with the next seed", do.reset),
        ]

    def update(self, session: Session) -> None:
        """Show how things stand, unless it was shown a moment ago and the run goes on."""
        began = time.perf_counter()
        if session.mood == "playing" and began < self._due:
            return
        step = session.step
        if step is not None:
            self.picture.value = _png([step.image[0], step.best_image[0]])
            self.curves.value = self._drawn(session)
        self.state.value = self._told(session)
        self._follow(session)
        now = time.perf_counter()
        self._due = now + max(OFTEN, min(LONGEST, SHARE * (now - began)))

    def _drawn(self, session: Session) -> str:
        history = session.history
        lines = {
            "score": [(x, y) for x, y, _ in history],
            "best": [(x, best) for x, _, best in history],
        }
        marks = {
            e["step"]: str({k: v for k, v in e.items() if k != "step"}) for e in session.run.log[-MARKS:]
        }
        return curve.svg(lines, marks, f"Score and best score up to step {history[-1][0] if history else 0}")

    def _told(self, session: Session) -> str:
        step = session.step
        if step is None:
            return escape(session.message) or "choosing a start …"
        if step.index < self._times[-1][0]:  # it was begun again
            self._times = []
        self._times = [*self._times, (step.index, time.perf_counter())][-30:]
        (first, then), (last, now) = self._times[0], self._times[-1]
        speed = max(0, last - first) / max(1e-9, now - then)
        left = f", {(step.total - step.index) / speed:.0f} s left" if speed else ""
        facts = f"step {step.index} of {step.total}, {speed:.1f} step/s{left}, {_memory()}"
        return f"<b>{session.mood}</b>: {facts}<br>{escape(session.message)}"

    def _follow(self, session: Session) -> None:
        """Put controls back whose values were not taken."""
        for knob in knobs_of(session.run):
            control, value = self.controls[knob.name], session.run.wanted[knob.name]
            if _or_none(knob, control.value) != value:
                control.value = knob.write(value)


def _all(session: Session) -> list[Knob]:
    return [*knobs_of(session.run), SEED]


def _control(knob: Knob, session: Session) -> Any:  # noqa: ANN401  one of ipywidgets' classes
    """Return a knob's control, which writes its value, and nothing else, when it is turned."""
    value = session.seed if knob is SEED else session.run.wanted[knob.name]
    shown: dict[str, Any] = {
        "value": knob.write(value),
        "description": knob.label,
        "description_tooltip": knob.tooltip,
        "layout": WIDE,
        "style": {"description_width": "110px"},
    }
    if knob.kind in ("number", "log", "whole"):
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
    control = kinds[knob.kind](**shown)
    control.observe(partial(_turned, knob, session), "value")
    return control


def _turned(knob: Knob, session: Session, change: dict[str, Any]) -> None:
    value = _or_none(knob, change["new"])
    if value is None:
        session.message = f"{knob.label}: {change['new']!r} is not a list of numbers."
    elif knob is SEED:
        session.seed = value
    elif session.run.wanted[knob.name] != value:
        session.turn(**{knob.name: value})


def _or_none(knob: Knob, shown: Any) -> Any:  # noqa: ANN401
    try:
        return knob.read(shown)
    except ValueError:
        return None


def _button(name: str, tip: str, act: Callable[[], object]) -> widgets.Button:
    button = widgets.Button(description=name, tooltip=tip, layout=widgets.Layout(width="80px"))
    button.on_click(lambda _: act())
    return button


def _png(images: list[torch.Tensor]) -> bytes:
    """Return pictures [3, h, w] in [-1, 1] side by side, as a PNG; the browser enlarges it."""
    file = BytesIO()
    save_image(torch.cat([image.detach().float() for image in images], -1) / 2 + 0.5, file, "png")
    return file.getvalue()


def _memory() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.memory_allocated() / 2**20:,.0f} MB on the GPU"
    import psutil

    return f"{psutil.Process().memory_info().rss / 2**20:,.0f} MB"
