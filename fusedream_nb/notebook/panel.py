"""A session's panel of widgets (ipywidgets 7.7 and later): pictures, curves, buttons, knobs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from io import BytesIO
from typing import Any, Literal

import ipywidgets as widgets
import torch
from torchvision.utils import save_image

from fusedream_nb.method.barrier import RULES
from fusedream_nb.method.run import Run

from .live import Session
from .show import PALETTE

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


OFTEN = 0.2  # seconds between two pictures, at least
SHARE, LONGEST = 25, 2.0  # and so many times what drawing one takes: 4 % of the time; but no longer
SHOWN = 256  # pixels that a picture is high on the screen
GAP = 1 / 32  # of a picture's width, between the two
MARKS = 60  # of the knobs' changes, the last ones
WIDTH, HEIGHT, MARGIN = 520, 120, 4
RIGHT = WIDTH - 46  # where the curves end; beyond are the numbers
DASHES = ("", "6 3", "2 3", "8 3 2 3")
POINTS = 300  # more are not seen
LETTERS = 28  # of a curve's name

HALF = '<span style="display:inline-block; width:264px; text-align:center">'
CAPTIONS = f"{HALF}now</span>{HALF}best so far</span>"

Curve = Sequence[tuple[float, float]]


class Panel:
    """What shows a session and steers it; ``widget`` is what a notebook displays.

    A button hands one thing over and does nothing else; it is done between two steps.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.controls = session, Controls(session)
        self.picture = widgets.Image(  # begun empty, a browser may collapse it for good
            value=_blank(session),
            format="png",
            layout=widgets.Layout(height=f"{SHOWN}px", max_width="100%", object_fit="contain"),
        )
        self.state, self.scores, self.losses = (widgets.HTML() for _ in range(3))
        self.state.value = "choosing a start …"
        buttons = [
            _button(session, "Play", "play", "Go on", session.play),
            _button(session, "Pause", "pause", "Wait after this step", session.pause),
            _button(session, "Step", "step-forward", "Make one step, and wait", session.step_once),
            _button(session, "Stop", "stop", "End the run; its memory is let go", session.stop),
            _button(session, "Save", "save", "Save the picture with everything that made it", session.save),
            _button(session, "Reset", "refresh", "Begin again with the next seed", session.reset),
        ]
        wrap = widgets.Layout(flex_flow="row wrap")
        seen = [self.picture, widgets.HTML(value=CAPTIONS), self.scores, self.losses]
        left = widgets.VBox(seen, layout=widgets.Layout(width="540px", align_items="flex-start"))
        both = widgets.HBox([left, widgets.VBox(list(self.controls.widgets.values()))], layout=wrap)
        self.widget = Box([widgets.HBox(buttons, layout=wrap), self.state, both])
        self._due, self._times = 0.0, [(0, time.perf_counter())]
        session.callbacks.append(self.update)

    def update(self, session: Session) -> None:
        """Show how things stand, unless it was shown a moment ago and the run goes on."""
        began = time.perf_counter()
        if session.status == "playing" and began < self._due:
            return
        step = session.step
        if step is not None:
            self.picture.value = _png(step.image[0], step.best_image[0])
            self.scores.value, self.losses.value = self._drawn(session)
        self.state.value = self._facts(session)
        self.controls.follow()
        now = time.perf_counter()
        self._due = now + max(OFTEN, min(LONGEST, SHARE * (now - began)))

    def _drawn(self, session: Session) -> tuple[str, str]:
        """Return the curves of the scores, and of the losses if there are any, with the knobs' changes."""
        marks: dict[float, str] = {}
        for entry in session.run.log[-MARKS:]:
            knobs = " ".join(f"{name} {value}" for name, value in entry.items() if name != "step")
            marks[entry["step"]] = f"{marks.get(entry['step'], '')} {knobs}".strip()
        last = session.history[-1][0] if session.history else 0
        curves: tuple[dict[str, list[tuple[float, float]]], ...] = {}, {}
        for index, *measured in session.history:
            for lines, values in zip(curves, measured, strict=True):
                for name, value in values.items():
                    lines.setdefault(name, []).append((index, value))
        names = "Score and best score", "Losses"
        scores, losses = (svg(c, marks, f"{n} up to step {last}") for c, n in zip(curves, names, strict=True))
        return scores, losses

    def _facts(self, session: Session) -> str:
        step = session.step
        if step is None:
            return escape(session.message) or "choosing a start …"
        if step.index < self._times[-1][0]:  # it was begun again
            self._times = []
        self._times = [*self._times, (step.index, time.perf_counter())][-30:]
        (first, then), (last, now) = self._times[0], self._times[-1]
        speed = max(0, last - first) / max(1e-9, now - then)
        left = f" · {_spoken((step.total - step.index) / speed)} left" if speed else ""
        facts = f"step {step.index} of {step.total} · {speed:.1f} step/s{left} · {_memory()}"
        return f"<b>{session.status}</b> · {facts}<br>{escape(session.message)}"


class Box(widgets.VBox):  # type: ignore[misc]
    """What is displayed; where nothing draws widgets, it says what is missing."""

    def __repr__(self) -> str:
        return "A live panel: run this cell in Jupyter to see it."


def _button(session: Session, name: str, icon: str, tip: str, act: Callable[[], object]) -> widgets.Button:
    layout = widgets.Layout(width="86px")
    button = widgets.Button(description=name, icon=icon, tooltip=tip, layout=layout)
    button.on_click(lambda _: session.post(act))
    return button


def _blank(session: Session) -> bytes:
    """Return two white pictures of the size that a session will draw."""
    generator = session.run.models.generator
    white = torch.ones(3, *getattr(generator, "canvas", (generator.size, generator.size)))
    return _png(white, white)


def _png(image: torch.Tensor, best: torch.Tensor) -> bytes:
    """Return two pictures [3, h, w] in [-1, 1] side by side, as a PNG; the browser enlarges it."""
    file = BytesIO()
    gap = image.new_ones(*image.shape[:-1], round(GAP * image.shape[-1]))
    save_image(torch.cat([image, gap, best], -1).detach().float() / 2 + 0.5, file, "png")
    return file.getvalue()


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _memory() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.memory_allocated() / 2**20:,.0f} MB on the GPU"
    import psutil

    return f"{psutil.Process().memory_info().rss / 2**20:,.0f} MB"


def svg(curves: Mapping[str, Curve], marks: Mapping[float, str], alt: str) -> str:
    """Return an SVG of named curves of (x, y), y of finite numbers, with marks: x and what happened there."""
    points = [p for curve in curves.values() for p in curve if math.isfinite(p[1])]
    if not points:
        return ""
    low, high = min(y for _, y in points), max(y for _, y in points)
    last = max(1.0, *(x for x, _ in points))

    def place(x: float, y: float) -> str:
        right = MARGIN + (RIGHT - MARGIN) * x / last
        down = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - low) / (high - low or 1)
        return f"{right:.1f},{down:.1f}"

    rows, legend = [], []
    for at, text in marks.items():
        ends = " ".join(place(min(at, last), y) for y in (low, high))
        title = f"<title>{escape(text)}</title>"
        rows.append(f'<polyline points="{ends}" stroke="#999" stroke-dasharray="1 2">{title}</polyline>')
    for i, (name, curve) in enumerate(curves.items()):
        colour, dash = PALETTE[i % len(PALETTE)], DASHES[i % len(DASHES)]
        line = " ".join(place(x, y) for x, y in curve[:: max(1, len(curve) // POINTS)] if math.isfinite(y))
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        rows.append(f'<polyline points="{line}" {style}/>')
        if curve:
            sample = f'<svg width="26" height="8"><line x1="0" x2="26" y1="4" y2="4" {style}/></svg>'
            short = escape(name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…")
            legend.append(f'<span style="white-space:nowrap">{sample} {short} {curve[-1][1]:.3f}</span>')
    for value, down in ((high, 12), (low, HEIGHT - MARGIN)):
        rows.append(f'<text x="{RIGHT + 6}" y="{down}" font-size="11" fill="#555">{value:.3g}</text>')
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" style="background:#fff">{"".join(rows)}</svg><br>{" &nbsp; ".join(legend)}'
    )
