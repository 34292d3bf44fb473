"""A session's panel of widgets (ipywidgets 7.7 and later): the pictures, curves, buttons and knobs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO

import ipywidgets as widgets
import torch
from torchvision.utils import save_image

from .knobs import Controls
from .session import Session
from .show import PALETTE

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
