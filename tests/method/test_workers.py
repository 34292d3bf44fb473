"""Batches side by side: as one after another, and nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.method.compose import CompositionRun
from fusedream_nb.method.placement import PLACEMENTS
from fusedream_nb.models import Models
from fusedream_nb.models.compute import side_by_side, workers

CPU = torch.device("cpu")
SMALL = replace(fd.budget("quick"), M=6, k=2, steps=2, copies=2, start_copies=1, judged_copies=2)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch with two threads, as on a machine with two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_what_is_found_comes_in_order_and_each_worker_has_one_core() -> None:
    barrier = threading.Barrier(2, timeout=30)

    def act(part: int) -> tuple[int, int]:
        barrier.wait()  # never passed, were they one after another
        return part, torch.get_num_threads()

    assert side_by_side(act, range(4), 2) == [(i, 1) for i in range(4)]
    assert torch.get_num_threads() == 2
    late = []
    other = threading.Thread(target=lambda: late.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert late == [2]


@pytest.mark.usefixtures("two_threads")
def test_an_error_is_raised_and_what_has_not_begun_does_not_begin() -> None:
    begun = []

    def act(part: int) -> None:
        begun.append(part)
        raise ValueError("part 0" if part == 0 else "another")

    with pytest.raises(ValueError, match="part 0"):
        side_by_side(act, range(1000), 2)
    assert len(begun) < 1000
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_there_are_no_more_workers_than_threads_or_than_the_memory_allows_and_one_on_a_gpu() -> None:
    assert [workers(CPU, most) for most in (1, 2, 9)] == [1, 2, 2]
    assert workers(torch.device("cuda"), 9) == 1


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_no_more_placements_than_a_batch_are_looked_at_together(
    models: Models, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    look, lock, at_once, most = CompositionRun._look_at, threading.Lock(), 0, 0

    def counted(run: CompositionRun, rows: list[int]) -> list[torch.Tensor]:
        nonlocal at_once, most
        with lock:
            at_once += len(rows)
            most = max(most, at_once)
        found = look(run, rows)
        with lock:
            at_once -= len(rows)
        return found

    monkeypatch.setattr(CompositionRun, "_look_at", counted)
    run = fd.compose("a dog next to a house", models, placements=PLACEMENTS[-4:], budget=SMALL)
    run.batch = batch
    next(run)
    assert most == min(batch, 2 * (batch // 2) or 1)


def test_a_composition_is_the_same_in_two_threads_as_in_one(models: Models) -> None:
    found = []
    for threads, batch in ((1, 1), (2, 2)):  # a batch of one each
        torch.set_num_threads(threads)
        try:
            run = fd.compose("a dog next to a house", models, placements=PLACEMENTS[-3:], budget=SMALL)
            run.batch = batch
            *_, last = run
        finally:
            torch.set_num_threads(1)
        found.append(last)
    one, two = found
    torch.testing.assert_close(one.image, two.image, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.best_score, two.best_score, atol=1e-4, rtol=0)
    assert one.winner == two.winner
