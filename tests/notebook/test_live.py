"""Sessions without a notebook: statuses, knobs, errors, memory; and the drivers, on a real event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.config import RunConfig
from fusedream_nb.method.fusedream import climb
from fusedream_nb.method.latents import Plain
from fusedream_nb.method.run import Run
from fusedream_nb.method.scores import Score
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent
from fusedream_nb.notebook import live as drivers
from fusedream_nb.notebook import live as sessions
from fusedream_nb.notebook.live import Session, choose, drive
from fusedream_nb.notebook.panel import KNOBS, SEED, knobs_of, svg

TINY = Budget("tiny", M=4, k=2, steps=6, copies=2, lr=0.02, start_copies=1, judged_copies=2)


class Dot:
    """A generator whose picture is its latent: its steps cost next to nothing."""

    size, class_names = 1, ()

    def decode(self, latent: Latent) -> torch.Tensor:
        return latent.z[:, :, None, None]

    def project(self, latent: Latent) -> Latent:
        return latent


class Near(Score):
    """Minus the squared distance to 1; ``trouble`` is raised at its fourth call."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble, self.calls = trouble, 0

    def __call__(self, image: torch.Tensor, rng: object) -> torch.Tensor:
        self.calls += 1
        if self.trouble and self.calls == 4:
            raise self.trouble
        return -(image.flatten(1) - 1).pow(2).sum(1)


def dots(steps: int = 6, trouble: Exception | None = None) -> Run:
    start, rng = Plain(Latent(torch.zeros(1, 3))), torch.Generator()
    run = climb(Dot(), Near(trouble), start, rng, steps=steps, lr=0.1, fixed_score=Near())
    run.config = RunConfig("dots", ["a dot"], [0], TINY, {})
    return run


def dog(models: Models, **more: Any) -> Run:
    return fd.fusedream("a blue dog", models, seed=3, budget=TINY, **more)


def test_headless_the_result_is_the_runs_own(models: Models, tmp_path) -> None:
    session = fd.live(dog(models), out=tmp_path)
    assert choose() == "inline"
    assert (session.step, session.status) == (None, "playing")
    assert torch.equal(session.result().best_image, list(dog(models))[-1].best_image)
    assert session.status == "done"
    assert session.result() is session.step


def test_a_session_is_saved_and_replayed_knob_by_knob(models: Models, tmp_path) -> None:
    session = fd.live(dog(models), out=tmp_path, copies=3)
    session.advance(), session.advance()
    session.set(lr=0.05, cutout=0.0)
    session.advance()
    session.set(prompt=["a red car"], steps=5)
    session.result()
    (path,) = session.save()
    told = fd.read_record(path)
    assert [(entry["step"], *entry.keys() - {"step"}) for entry in told.knobs] == [
        (0, "copies"), (1, "lr"), (1, "cutout"), (2, "steps"), (2, "prompt"),
    ]  # fmt: skip
    assert (told.prompt, told.steps_done) == ("a red car", 5)
    image, off = fd.replay(path)
    assert off == 0
    assert torch.equal(image, session.step.best_image[0])


def test_statuses() -> None:
    session = Session(dots())
    session.pause()
    assert not session.advance()
    session.step_once()
    assert session.advance()
    assert not session.advance()
    assert (session.status, session.step.index) == ("paused", 0)
    session.play()
    assert session.advance()
    session.stop()
    assert not session.advance()
    session.play()
    assert (session.status, session.result().index) == ("stopped", 1)
    with pytest.raises(ValueError, match="before its first step"):
        stopped = Session(dots())
        stopped.stop()
        stopped.result()


def test_a_done_session_goes_on_where_more_steps_are_wanted() -> None:
    session = Session(dots(2))
    assert session.result().index == 2
    session.set(steps=5)
    assert session.status == "paused"
    assert session.result().index == 5


def test_reset_begins_again_with_the_knobs_and_words_of_now(models: Models) -> None:
    session = Session(dog(models, steps=2))
    session.advance()
    session.set(prompt=["a red car"], lr=0.05)
    session.result()
    session.seed = 7
    session.reset()
    assert (session.step, session.status, session.history) == (None, "playing", [])
    session.result()
    other = fd.fusedream("a red car", models, seed=7, budget=TINY, steps=2, lr=0.05)
    assert torch.equal(session.step.image, list(other)[-1].image)


def test_what_goes_wrong_is_kept_told_and_raised() -> None:
    session = Session(dots(trouble=ZeroDivisionError("by zero")))
    seen = []
    session.callbacks.append(lambda s: seen.append((s.status, s.message)))
    while session.advance():
        pass
    assert seen[-1] == ("failed", "by zero")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="by zero"):
            session.result()


@pytest.mark.parametrize(
    "trouble", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 GB")]
)
def test_out_of_memory_the_run_waits_and_goes_on_as_if_nothing_had_been(trouble: Exception) -> None:
    session = Session(dots(trouble=trouble))
    while session.advance():
        pass
    assert (session.status, session.step.index) == ("paused", 2)
    assert str(trouble) in session.message
    assert "lower steps" in session.message
    assert torch.equal(session.result().image, list(dots())[-1].image)


def test_a_refused_value_is_told_and_goes_back() -> None:
    session = Session(dots())
    session.advance()
    session.set(lr=-1.0)
    assert not session.advance()
    assert session.message.startswith("lr: The learning rate must be above 0")
    assert session.run.wanted["lr"] == 0.1
    with pytest.warns(UserWarning, match="Not taken: lr"):
        assert session.result().index == 6
    with pytest.raises(ValueError, match="no knob called 'copies'"):
        session.set(copies=3)


def test_saving_says_why_it_cannot(models: Models, tmp_path) -> None:
    session = Session(dots())
    assert session.save() == []
    assert "saves nothing" in session.message
    session = fd.live(dog(models), out=tmp_path / "file" / "below")
    assert session.save() == []
    assert "nothing to save yet" in session.message
    session.advance()
    (tmp_path / "file").touch()
    assert session.save() == []
    assert "Nothing can be written" in session.message


def test_the_history_thins_out_and_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEEPS", 40)
    session = Session(dots(130))
    session.result()
    index = [row[0] for row in session.history]
    assert 20 <= len(index) <= 40
    assert index[0] == 0
    assert len({b - a for a, b in zip(index, index[1:], strict=False)}) == 1


def test_a_task_lets_in_every_knob_and_two_sessions_do_not_mix() -> None:
    async def scene() -> tuple[Session, Session, list[int]]:
        one, other = Session(dots(10_000)), Session(dots(40))
        drive(one, "task"), drive(other, "task")
        turned = []
        for i in range(2000):  # no slower than a hand, and never waited for
            one.set(lr=0.1 + i / 1e6)
            if i % 100 == 0:
                turned.append(one.step.index if one.step else -1)
                while one.step is None or one.step.index == turned[-1]:
                    await asyncio.sleep(0.001)
        while other.going or not one.run.log or one.run.log[-1]["lr"] != one.run.wanted["lr"]:
            await asyncio.sleep(0.001)
        at = one.step.index
        one.pause()
        await asyncio.sleep(0.05)
        assert one.step.index <= at + 1
        one.stop()
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == 1
        return one, other, turned

    one, other, turned = asyncio.run(scene())
    assert one.run.log[-1]["lr"] == pytest.approx(0.1 + 1999 / 1e6)
    assert [entry["step"] for entry in one.run.log] == sorted({entry["step"] for entry in one.run.log})
    assert turned[-1] > turned[0]
    assert other.status == "done"
    assert other.run.log == []
    assert torch.equal(other.step.image, list(dots(40))[-1].image)


def test_a_step_waits_for_the_value_that_a_front_end_holds_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slider sends no second value before it hears that the first was taken: no step comes between."""
    monkeypatch.setattr(drivers, "LONGEST", 60.0)

    async def scene() -> list[float]:
        session = Session(dots(100_000))
        drive(session, "task")
        while session.step is None or session.step.index < 3:
            await asyncio.sleep(0)
        session.set(lr=0.2)
        await asyncio.sleep(drivers.ANSWER / 3)
        session.set(lr=0.3)
        while not session.run.log or session.run.log[-1]["lr"] != 0.3:
            await asyncio.sleep(0.001)
        session.stop()
        return [entry["lr"] for entry in session.run.log]

    assert asyncio.run(scene()) == [0.3]


def test_a_task_begins_again_after_a_reset(models: Models) -> None:
    async def scene() -> list[int]:
        session, ends = Session(dog(models, steps=1)), []
        drive(session, "task")
        for _ in range(2):
            while session.going:
                await asyncio.sleep(0.001)
            ends.append(session.step.index)
            session.reset(seed=5)
        session.stop()
        return ends

    assert asyncio.run(scene()) == [1, 1]


def test_modes(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with pytest.raises(ValueError, match="task, poll, inline"):
        drive(Session(dots()), "thread")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    assert choose() == "poll"
    monkeypatch.setattr(drivers, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    session = Session(dots())
    drive(session, "poll")
    assert "pip install jupyter-ui-poll" in capsys.readouterr().out
    assert session.result().index == 6


def test_every_knob_of_every_method_is_in_the_table_and_reads_what_it_writes(models: Models) -> None:
    runs = [
        dog(models),
        fd.compose("a cat", models, placements=fd.Placement(0.5), budget=TINY),
        fd.transport(["a cat", "a dog"], models, budget=TINY, weights=[1, 2.5]),
    ]
    for run in runs:
        assert {knob.name for knob in knobs_of(run)} == run.knobs.keys()
        for knob in knobs_of(run):
            value = run.knobs[knob.name]
            assert knob.read(knob.write(value)) == value
            if knob.kind == "choice":
                assert value in knob.choices
            elif knob.kind in ("number", "log", "whole"):
                low, high = knob.around(value)
                assert low < high
    assert all(knob.label and knob.tooltip.endswith((".", "off.")) for knob in (*KNOBS, SEED))


def test_a_sliders_stops_are_a_step_apart_and_its_value_is_within_half_of_one() -> None:
    (lr,) = (knob for knob in KNOBS if knob.name == "lr")
    assert lr.stop(0.02) == pytest.approx(10**-1.7)
    assert lr.stop(lr.stop(0.02)) == pytest.approx(lr.stop(0.02))
    (cutout,) = (knob for knob in KNOBS if knob.name == "cutout")
    assert cutout.stop(0.33) == pytest.approx(0.35)
    assert cutout.stop(0.25) == pytest.approx(0.25)


def test_the_history_keeps_what_rises_and_what_falls(models: Models) -> None:
    place = fd.Placement(0.5)
    for run, names in (
        (dog(models), []),
        (fd.compose("a cat", models, placements=place, budget=TINY), ["LPIPS under the box"]),
        (fd.transport(["a cat", "a dog"], models, budget=TINY, epsilon=0.5), ["a cat", "a dog"]),
    ):
        session = Session(run)
        session.advance()
        ((index, scores, losses),) = session.history
        step = session.step
        assert (index, scores) == (0, {"score": step.score[0].item(), "best": step.best_score[0].item()})
        assert list(losses) == names
        assert losses == {name: value[0].item() for name, value in step.losses().items()}


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(allow_nan=True)), max_size=50), st.text(max_size=9))
@settings(max_examples=50, deadline=None)
def test_a_curve_is_well_formed_and_inside_its_frame(points, text) -> None:
    from xml.etree import ElementTree

    points = [(x, y if abs(y) < 1e300 else float("nan")) for x, y in points]
    printable = "".join(c for c in text if c.isprintable())
    drawn = svg({"score": points, "best": []}, {1.0: printable}, "a curve")
    if not drawn:
        return
    root = ElementTree.fromstring(f"<div>{drawn}</div>".replace("<br>", "<br/>"))
    for line in root.iter("polyline"):
        for pair in line.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 520
            assert 0 <= y <= 120
