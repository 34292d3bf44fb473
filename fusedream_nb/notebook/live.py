"""A run that is steered while it runs, and who takes its steps in every kind of notebook: ``fd.live``.

A loop inside a cell keeps a kernel from reading what a slider sends. So the cell returns, and a task of
the kernel's own event loop takes the steps, letting messages in between. Colab does not show what comes
after a cell's end: there the cell goes on, and polls. Without a kernel nobody sets a knob.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from fusedream_nb.method import run as runs
from fusedream_nb.method import run_from
from fusedream_nb.method.run import Refused, State, Step
from fusedream_nb.records.record import describe, save

Status = Literal["playing", "paused", "stopped", "done", "failed"]
Run = runs.Run[Any]
Keep = Callable[[Run], list[Path]]
MEMORY = ("copies", "patches")  # the knobs that memory goes with
KEEPS = 4000  # points of the curves, of which every other is dropped when there are more


class Session:
    """A run and what is wanted of it; a driver calls :meth:`advance` again and again.

    ``status`` says whether steps are wanted, ``message`` what there is to report, ``error`` what went wrong,
    ``history`` holds (step, scores, losses) of the first picture, by their names. ``callbacks`` are called
    after everything that happens. ``keep`` saves the pictures. Nothing here knows of widgets.
    The run is stopped after so many ``seconds``, pauses included. ``post`` is how another thread hands
    something over to whoever takes the steps: a kernel with subshells hears its widgets in one of its own.
    """

    def __init__(self, run: Run, keep: Keep | None = None, seconds: float = math.inf) -> None:
        self.run, self.keep, self.seconds = run, keep, seconds
        self.seed = run.config.seeds[0]
        self.callbacks: list[Callable[[Session], object]] = []
        self.post: Callable[[Callable[[], object]], object] = lambda act: act()
        self.events = 0
        self.saved: list[Path] = []
        self._clear()

    def _clear(self) -> None:
        self.status: Status = "playing"
        self.message, self._once = "", False
        self.error: Exception | None = None
        self.refusals: list[str] = []
        self.history: list[tuple[int, dict[str, float], dict[str, float]]] = []
        self._every = 1

    @property
    def step(self) -> Step | None:
        """The last step, if there was one."""
        return self.run.step

    @property
    def going(self) -> bool:
        """Whether there may be more steps: a driver goes on as long."""
        return self.status in ("playing", "paused")

    def set(self, **knobs: Any) -> None:  # noqa: ANN401  numbers and texts
        """Ask for other values from the next step on; ValueError for a knob that the run has not."""
        self.run.set(**knobs)
        self.events += 1
        if self.status == "done" and self.step and self.run.wanted["steps"] > self.step.index:
            self.status = "paused"

    def play(self) -> None:
        """Go on."""
        self._become("playing")

    def pause(self) -> None:
        """Wait after the step that is being made."""
        self._become("paused")

    def step_once(self) -> None:
        """Make one step, and wait."""
        self._become("paused")
        self._once = self.going

    def stop(self) -> None:
        """End the run, keep its last step, and let go of its memory."""
        self._become("stopped")
        self.run.close()
        torch.cuda.empty_cache()

    def _become(self, status: Status) -> None:
        self.events += 1
        if self.going:
            self.status, self.message = status, ""
            self._report()

    def reset(self, seed: int | None = None) -> None:
        """Begin again with a seed (None: ``seed``), the words and the knobs as they are wanted now."""
        self.events += 1
        old, wanted = self.run, dict(self.run.wanted)
        first = self.seed if seed is None else seed
        seeds = [first + i for i in range(len(old.config.seeds))]
        prompts = wanted.pop("prompt", old.config.prompts)
        old.close()
        self.run = run_from(replace(old.config, seeds=seeds, prompts=list(prompts)), old.models)
        self.run.set(**wanted)
        self._clear()
        self._report()

    def save(self) -> list[Path]:
        """Save the pictures as they stand, with the log of the knobs; return where they are."""
        self.events += 1
        made: list[Path] = []
        if self.keep is None or self.step is None:
            self.message = "There is nothing to save yet." if self.keep else "This session saves nothing."
        else:
            try:
                self.saved = made = self.keep(self.run)
                self.message = f"Saved {', '.join(map(str, made))}."
            except (OSError, ValueError) as error:
                self.message = str(error)
        self._report()
        return made

    def result(self) -> Step:
        """Return the last step, after finishing the run here and now unless it was stopped.

        Raises what went wrong during the run, whoever drove it; warns of values that no knob took.
        """
        if self.status == "paused":
            self.play()
        while self.status == "playing":
            self.advance()
        if self.error is not None:
            raise self.error
        while self.refusals:
            warnings.warn(f"Not taken: {self.refusals.pop(0)}", stacklevel=2)
        if self.step is None:
            raise ValueError("The session was stopped before its first step; reset it, and ask again.")
        return self.step

    def advance(self) -> bool:
        """Make one step if one is wanted, and return whether it was made; what goes wrong is kept.

        A value that a knob refuses is reported. Where memory runs out, the run goes back before the step, and
        waits. Anything else ends it.
        """
        if not (self.status == "playing" or self._once):
            return False
        self._once = False
        before = self.run.state_dict() if self.run.step is not None else None
        try:
            step = next(self.run)
        except StopIteration:
            self.status = "done"
        except Refused as error:
            self.message = str(error)
            self.refusals.append(self.message)
        except Exception as error:
            self._fail(error, before)
        else:
            self._note(step)
            self._report()
            return True
        self._report()
        return False

    def _fail(self, error: Exception, before: State | None) -> None:
        self.error, self.status, self.message = error, "failed", str(error)
        full = "OutOfMemory" in type(error).__name__ or "allocate memory" in self.message
        if before is not None and full:
            knob = next((name for name in MEMORY if name in self.run.knobs), "steps")
            self.message = f"There is not enough memory ({error}); lower {knob}, and play on."
            self.status = "paused"
            self.run.load_state_dict(before)
            torch.cuda.empty_cache()
            next(self.run)  # the step before, drawn again

    def _note(self, step: Step) -> None:
        self.error = None
        if step.index % self._every == 0:  # what is climbed and what is to fall, of the first picture
            scores = {"score": float(step.score[0]), "best": float(step.best_score[0])}
            losses = {name: float(values[0]) for name, values in step.losses().items()}
            self.history.append((step.index, scores, losses))
        if len(self.history) > KEEPS:
            self.history, self._every = self.history[::2], 2 * self._every
        if step.seconds > self.seconds:
            self.stop()
            self.message = f"The {self.seconds:g} seconds are over."
        elif step.index >= step.total and self.run.wanted.get("steps", 0) <= step.index:
            self.status = "done"

    def _report(self) -> None:
        for callback in self.callbacks:
            callback(self)


Mode = Literal["task", "poll", "inline"]
MODES: tuple[Mode, ...] = ("task", "poll", "inline")
QUIET = 6  # turns of the event loop without news, after which the next step is made
LONGEST = 0.2  # seconds that knobs which are turned without a pause keep a step waiting
ANSWER = 0.03  # seconds in which a front end sends a value that it held back until the last was taken
GLANCE = 0.001  # seconds for the threads in which kernels with subshells hear their widgets
IDLE = 0.02  # seconds between two looks at a session that waits


def choose() -> Mode:
    """Return how sessions are driven where this runs."""
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return "poll"
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive else None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "inline"
    return "task" if hasattr(shell, "kernel") else "inline"


def drive(session: Session, mode: Mode) -> None:
    """Begin to take a session's steps: in a task; by polling, until it ends; or not yet.

    With "inline" it is ``session.result()`` that takes them. Raises ValueError for an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"No mode is called {mode!r}; known are {', '.join(MODES)}.")
    if mode == "task":
        _as_tasks(session)
    elif mode == "poll":
        _polling(session)


def _as_tasks(session: Session) -> None:
    """Step a session in a task of the event loop, and in another one when it is begun again."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    def wake(_: Session) -> None:
        if session.going and not running:
            task = loop.create_task(_in_turns(session))
            running.add(task)  # the loop itself keeps no more than a weak reference
            task.add_done_callback(running.discard)

    session.post = loop.call_soon_threadsafe
    session.callbacks.append(wake)
    wake(session)


async def _in_turns(session: Session) -> None:
    heard = session.events
    while session.going:
        heard = await _let_in(session, heard)
        if not session.advance():
            await asyncio.sleep(IDLE)


async def _let_in(session: Session, heard: int) -> int:
    """Let the event loop turn until no more knobs are turned, but not for long; then comes the step.

    ``heard`` is how many events there had been before the last step; returns how many there are now.
    """
    await asyncio.sleep(GLANCE)
    end = time.monotonic() + LONGEST
    while True:
        quiet, seen = 0, session.events
        while quiet < QUIET and time.monotonic() < end:
            await asyncio.sleep(0)
            quiet, seen = (quiet + 1, seen) if session.events == seen else (0, session.events)
        if session.events == heard or time.monotonic() >= end:
            return session.events
        heard = session.events
        await asyncio.sleep(ANSWER)


def _polling(session: Session) -> None:
    try:
        events = import_module("jupyter_ui_poll").ui_events
    except ImportError:
        print("Knobs reach a running cell with jupyter_ui_poll only: python -m pip install jupyter-ui-poll")
        return
    with events() as poll:
        while session.going:
            if not session.advance():
                time.sleep(IDLE)
            poll(10)


def live(
    run: Run,
    *,
    mode: Mode | None = None,
    panel: bool | None = None,
    out: str | Path = "fusedream-out",
    seconds: float = math.inf,
    **knobs: Any,  # noqa: ANN401  numbers and texts
) -> Session:
    """Steer a run while it runs: ``fd.live(fd.fusedream(…))``; return its session.

    ``knobs`` are set before the first step. ``mode`` is "task" (after the cell has returned), "poll"
    (inside the cell), "inline" (in ``session.result()``), or None: what works where this runs. The panel
    is shown wherever there is a notebook. Pictures are saved in the folder ``out``. After so many
    ``seconds``, pauses included, the run is stopped.
    Raises ValueError for an unknown knob or mode.
    """

    def keep(run: Run) -> list[Path]:
        return [save(image, what, Path(out)) for image, what in describe(run)]

    run.set(**knobs)
    session = Session(run, keep, seconds)
    mode = mode or choose()
    if panel or (panel is None and mode != "inline"):
        from IPython.display import display

        from .panel import Panel

        display(Panel(session).widget)
    drive(session, mode)
    return session
