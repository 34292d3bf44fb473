"""Two Ray workers, one of them killed, then the driver: nothing lost, nothing doubled, nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import psutil
import pytest

from fusedream_nb.evaluation.captions import captions
from fusedream_nb.evaluation.runs import Folder, Plan, here, on_ray, run
from fusedream_nb.method.budgets import BUDGETS

pytestmark = pytest.mark.heavy

TINY = replace(BUDGETS["quick"], M=2, k=1, steps=1, copies=1, start_copies=1, judged_copies=1)
PLAN = Plan(captions(limit=26), ("random", "naive-adam"), TINY)
DRIVER = f"""
import sys
from functools import partial
from fusedream_nb.method.budgets import Budget
from fusedream_nb.evaluation.captions import captions
from fusedream_nb.evaluation.runs import Folder, Plan, on_ray, run
plan = Plan(captions(limit=26), {PLAN.methods}, Budget(**{TINY.__dict__}))
folder = Folder(sys.argv[1])
ray = partial(on_ray, plan=plan, folder=folder, address="local", workers=2)
for made, _ in run(plan, folder, ray):
    print(made, flush=True)
"""


def states(address, workers):
    folder = Folder(address)
    ray = partial(on_ray, plan=PLAN, folder=folder, address="local", workers=workers)
    return list(run(PLAN, folder, ray))


def records(address):
    """Return every record by (caption, method), without its seconds; none is there twice."""
    found = [row for method in PLAN.methods for row in Folder(address).records(method, 0).to_pylist()]
    keyed = {(row["caption"], row["method"]): {**row, "seconds": 0} for row in found}
    assert len(keyed) == len(found)
    return keyed


def workers(driver):
    """Return the processes of the driver's actors; Ray starts them in sessions of their own."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if "ray::Worker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(driver, least):
    """Read the driver's lines until it has made so many pictures; return how many."""
    while True:
        line = driver.stdout.readline().strip()
        assert line, "the driver stopped"
        if line.isdigit() and int(line) >= least:  # Ray tells of deaths and new tries between them
            return int(line)


def test_kills_lose_nothing_and_double_nothing(tmp_path, models):
    alone, shared = str(tmp_path / "alone"), str(tmp_path / "shared")
    folder = Folder(alone)
    for _ in run(PLAN, folder, partial(here, plan=PLAN, folder=folder, models=models)):
        pass
    expected = records(alone)
    assert len(expected) == 52
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, shared], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    wait_for(driver, 4)
    crew = workers(driver)
    assert len(crew) == 2
    crew[0].send_signal(signal.SIGKILL)
    wait_for(driver, 20)
    crew = workers(driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while any(process.is_running() for process in crew) and time.monotonic() < deadline:
        time.sleep(0.2)
    kept = records(shared)
    assert 20 <= len(kept) < 52 and all(expected[key] == row for key, row in kept.items())
    found = states(shared, 2)
    assert found[0] == (0, 52 - len(kept)) and found[-1] == (52 - len(kept), 52 - len(kept))
    assert records(shared) == expected
    pictures = {
        name: sorted(path.name for path in (tmp_path / name).rglob("*.png")) for name in ("alone", "shared")
    }
    assert pictures["alone"] == pictures["shared"] and len(pictures["alone"]) == 52
    assert not list((tmp_path / "shared").rglob("*.part"))
    assert states(shared, 1) == [(0, 0)]  # no cluster is started for nothing
