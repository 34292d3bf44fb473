"""Controls that hand values over to whoever takes the steps, and follow the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
from fusedream_nb.models import Models
from fusedream_nb.notebook.live import Session
from fusedream_nb.notebook.panel import Controls

TINY = Budget("tiny", M=4, k=2, steps=6, copies=2, lr=0.02, start_copies=1, judged_copies=2)


class Desk:
    """A session whose controls are heard in another thread: what they hand over waits until it is taken."""

    def __init__(self, models: Models) -> None:
        self.session = Session(fd.fusedream("a blue dog", models, seed=3, budget=TINY))
        self.waiting: list[Callable[[], object]] = []
        self.session.post = self.waiting.append
        self.controls = Controls(self.session)

    def take(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    @property
    def wanted(self) -> dict:
        return self.session.run.wanted


@pytest.fixture
def desk(models: Models) -> Iterator[Desk]:
    yield Desk(models)


def test_a_value_on_its_way_is_not_taken_back(desk: Desk) -> None:
    control = desk.controls.widgets["lr"]
    control.value = 0.5
    desk.controls.follow()
    assert (control.value, desk.wanted["lr"]) == (0.5, 0.02)
    control.value = 0.02  # there and back before anything was taken
    desk.take()
    desk.controls.follow()
    assert (control.value, desk.wanted["lr"]) == (0.02, 0.02)
    for i in range(100):
        control.value = 0.1 + i / 1000
        if i % 7 == 0:
            desk.take()
        desk.controls.follow()
    desk.take()
    assert desk.wanted["lr"] == control.value == pytest.approx(0.199)


def test_a_slider_that_is_only_drawn_turns_nothing(desk: Desk) -> None:
    control = desk.controls.widgets["lr"]
    control.value = 0.01995262314968879  # the stop nearest to 0.02, as a browser sends it
    desk.take()
    assert desk.wanted["lr"] == 0.02
    for value in (0.0201, 0.01995262314968879):  # but a hand may put it there
        control.value = value
        desk.take()
    assert desk.wanted["lr"] == 0.01995262314968879
    desk.session.set(lr=0.03)
    desk.controls.follow()
    control.value = 0.03162277660168379
    desk.take()
    assert desk.wanted["lr"] == 0.03


def test_what_a_cell_turns_is_shown_as_it_is(desk: Desk) -> None:
    desk.session.set(steps=5000, lr=0.3)
    desk.controls.follow()
    desk.take()
    assert desk.controls.widgets["steps"].value == desk.wanted["steps"] == 5000
    assert desk.controls.widgets["lr"].value == desk.wanted["lr"] == 0.3


def test_a_refused_value_goes_back(desk: Desk) -> None:
    desk.session.advance()
    desk.controls.widgets["prompt"].value = " "
    desk.take()
    assert not desk.session.advance()
    desk.controls.follow()
    assert desk.controls.widgets["prompt"].value == "a blue dog"
    assert desk.waiting == []
    assert desk.wanted["prompt"] == ["a blue dog"]


def test_a_session_stops_when_its_seconds_are_over(models: Models) -> None:
    session = Session(fd.fusedream("a blue dog", models, budget=TINY, steps=10_000), seconds=0.0)
    assert session.result().index == 0
    assert session.status == "stopped"
    assert "seconds are over" in session.message
