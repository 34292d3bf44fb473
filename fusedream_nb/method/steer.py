"""Runs that can be steered, saved and resumed between any two of their steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from fusedream_nb.models import Models

    from .budgets import Budget
    from .run import Step

State = dict[str, Any]  # tensors, numbers, texts, and lists and dictionaries of them
Dial = Callable[[Any], None]
S = TypeVar("S", bound="Step")


class Stateful(Protocol):
    """A part of a loop whose state can be taken and put back, as torch's optimisers and modules."""

    def state_dict(self) -> State:
        """Return the state, which later steps leave as it is."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Put a state back; the state itself stays as it is."""
        ...


@dataclass
class Desk:
    """What a loop lays out for whoever drives it.

    ``parts`` are all that its future depends on, ``dials`` take a knob's new value between two steps, and
    ``knobs`` are the values in force. ``saved`` is the state to go on from. A dial sets ``anew`` where
    scores from now on are not to be compared with earlier ones; the loop then begins its best anew.
    """

    knobs: dict[str, Any] = field(default_factory=dict)
    saved: State | None = None
    parts: dict[str, Stateful] = field(default_factory=dict)
    dials: dict[str, Dial] = field(default_factory=dict)
    anew: bool = False

    def open(self, parts: Mapping[str, Stateful], dials: Mapping[str, Dial]) -> bool:
        """Lay out a loop's parts and dials; return whether they went back to a saved state."""
        self.parts |= parts
        self.dials |= dials
        if self.saved is None:
            return False
        if self.saved["parts"].keys() != self.parts.keys():
            raise ValueError("The saved state is another method's; resume with the same call.")
        for name, value in self.saved["knobs"].items():
            if value != self.knobs.get(name):
                self.dials[name](value)
                self.knobs[name] = value
        for name, part in self.parts.items():
            part.load_state_dict(self.saved["parts"][name])
        self.saved, self.anew = None, False
        return True

    def take_anew(self) -> bool:
        """Return whether the best is to begin anew, once."""
        anew, self.anew = self.anew, False
        return anew


@dataclass(frozen=True)
class Recipe:
    """What a run was asked for: ``options`` are the method's arguments that are not their defaults."""

    method: str
    prompts: list[Any]
    seeds: list[int]
    sizes: Budget
    options: dict[str, Any]


class Refused(ValueError):
    """A value that a knob does not take; the run is as it was, and can go on."""


class Steerable(Iterator[S], Generic[S]):
    """A run of a method: iterate over it for its Steps; in between, turn knobs, save, resume.

    ``knobs`` are the values in force and ``wanted`` those from the next step on: whoever turns a knob
    writes one value there. ``log`` holds the changes, each with the step after which it was made.
    ``step`` is the last one.
    """

    def __init__(
        self,
        loop: Callable[[Desk], Iterator[S]],
        models: Models,
        recipe: Recipe,
        knobs: Mapping[str, Any],
    ) -> None:
        self.models, self.recipe = models, recipe
        self._loop, self._first = loop, dict(knobs)
        self._begin(None)

    def _begin(self, saved: State | None) -> None:
        self.step: S | None = None
        self.log: list[dict[str, Any]] = list(saved["log"]) if saved else []
        self.wanted: dict[str, Any] = {**self._first, **(saved["knobs"] if saved else {})}
        self._desk = Desk(dict(self._first), saved)
        self._steps = self._loop(self._desk)

    @property
    def knobs(self) -> dict[str, Any]:
        """The knobs' values in force, by name."""
        return self._desk.knobs

    def turn(self, **knobs: Any) -> None:  # noqa: ANN401  numbers and texts
        """Ask for other values from the next step on; ValueError for a knob that this run has not."""
        for name in knobs:
            if name not in self._first:
                known = ", ".join(self._first)
                raise ValueError(f"This run has no knob called {name!r}; it has {known}.")
        self.wanted.update(knobs)

    def __iter__(self) -> Steerable[S]:
        return self

    def __next__(self) -> S:
        """Take the knobs as they are wanted now, and make the next step.

        Raises Refused for a value that a knob does not take: it goes back to where it was, and the run
        can go on.
        """
        before = len(self.log)
        if self.step is not None:
            self._take(dict(self.wanted), self.step.index)
        try:
            self.step = next(self._steps)
        except StopIteration:
            del self.log[before:]
            raise
        return self.step

    def _take(self, wanted: dict[str, Any], index: int) -> None:
        for name, value in wanted.items():
            if value == self.knobs[name]:
                continue
            try:
                self._desk.dials[name](value)
            except (ValueError, TypeError) as error:
                self.wanted[name] = self.knobs[name]
                raise Refused(f"{name}: {error}") from error
            self.knobs[name] = value
            self.log.append({"step": index, name: value})

    def state_dict(self) -> State:
        """Return all that the run's future depends on, as it is after its last step.

        Raises ValueError before the first step.
        """
        if self.step is None:
            raise ValueError("A run that has not begun has no state; take a step first.")
        parts = {name: part.state_dict() for name, part in self._desk.parts.items()}
        return {"knobs": dict(self.knobs), "log": list(self.log), "parts": parts}

    def load_state_dict(self, state: State) -> None:
        """Go back, or on, to a saved state: the next step is the saved one again, without a search.

        The run is one of the same method and sizes. What does not fit raises ValueError at that step.
        """
        self.close()
        self._begin(state)

    def close(self) -> None:
        """End the run and let go of what it holds in memory; ``step`` and ``log`` stay."""
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()
        self._desk.parts.clear()
        self._desk.dials.clear()


def changed(method: Callable[..., Any], **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return those of a method's arguments that are not its defaults."""
    defaults = {name: each.default for name, each in inspect.signature(method).parameters.items()}

    def plain(value: object, default: object) -> bool:
        return value is default or (isinstance(value, str | int | float | tuple) and value == default)

    return {name: value for name, value in arguments.items() if not plain(value, defaults[name])}
