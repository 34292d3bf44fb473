"""``fd.live``: who takes a session's steps, chosen here for every kind of notebook.

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
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from fusedream_nb.method.run import Run
from fusedream_nb.records.record import describe, save

from .session import Session

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
    run: Run[Any],
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

    def keep(run: Run[Any]) -> list[Path]:
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
