"""How soon a slider reaches a run in JupyterLab, in a headless Chromium; and 2,000 events in ten seconds.

python benchmarks/live_drags.py --drags 50 --events 2000
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))
from conftest import FLAGS, chromium_path, laboratory  # the tests' own browser

LIVE = """
import time
import fusedream_nb as fd
models = fd.load(device="cpu")
session = fd.live(fd.fusedream("a photo of a blue dog", models, M=20, steps=100_000, copies=COPIES))
uses = []
session.callbacks.append(lambda s: s.step and uses.append((time.time(), s.step.index, dict(s.run.knobs))))
panel = session.callbacks[0].__self__
"""


def main() -> None:
    """Print how long each drag took, the worst, and whether the events' last value and log are whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drags", type=int, default=50)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=12)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        with laboratory(sys.executable, browser, Path(folder)) as lab:
            book = lab.open(lab.write("drags.ipynb", LIVE.replace("COPIES", str(options.copies))))
            book.run(0)
            book.kernel.wait("session.step is not None and session.step.index > 2 and len(uses) > 2")
            drags(book.panel(), book.kernel, options.drags)
            events(book.kernel, options.events)
        browser.close()


def drags(panel: Any, kernel: Any, count: int) -> None:  # noqa: ANN401
    """Drag the learning rate; the bar is half a second or two steps, whichever is longer."""
    places, good, worst = random.Random(0), 0, (0.0, 0)
    for _ in range(count):
        panel.drag("Cutout", places.random())
        up = time.time()
        kernel.wait("session.run.knobs['cutout'] == panel.controls.widgets['cutout'].value")
        time.sleep(0.5)  # what the mouse still had to say has arrived
        kernel.wait("session.run.knobs['cutout'] == panel.controls.widgets['cutout'].value")
        index = kernel.ask("[e['step'] for e in session.run.log if 'cutout' in e][-1]")
        used = kernel.wait(f"next((t for t, i, _ in uses if i > {index}), 0)")
        steps = kernel.ask(f"sum({up} < t <= {used} for t, _, _ in uses)")
        good += used - up < 0.5 or steps <= 2
        worst = max(worst, (used - up, steps))
    pace = kernel.ask("(uses[-1][0] - uses[0][0]) / (uses[-1][1] - uses[0][1])")
    print(f"{good} of {count} drags in time; worst {worst[0]:.2f} s, {worst[1]} steps; {pace:.2f} s a step")


def events(kernel: Any, count: int) -> None:  # noqa: ANN401
    """Turn a knob many times in ten seconds; look at its last value and at the log."""
    comm = kernel.ask("panel.controls.widgets['noise'].comm.comm_id")
    first = kernel.ask("len(uses)")
    last, began = 0.0, time.monotonic()
    for i in range(count):
        last = round(0.0001 * (i + 1), 6)
        data = {"method": "update", "state": {"value": last}, "buffer_paths": []}
        message = kernel.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        kernel.client.shell_channel.send(message)
        time.sleep(max(0.0, began + 10 * (i + 1) / count - time.monotonic()))
    seconds = time.monotonic() - began
    kernel.wait(f"session.run.knobs['noise'] == {last}")
    kernel.wait("uses[-1][1] > session.run.log[-1]['step']")
    changes = (
        "(lambda seen: [b for a, b in zip([0.0] + seen, seen) if a != b])"
        f"([k['noise'] for _, _, k in uses[{first}:]])"
    )
    whole = kernel.ask(f"{changes} == [e['noise'] for e in session.run.log if 'noise' in e]")
    told = kernel.ask("sum('noise' in e for e in session.run.log)")
    print(f"{count} events in {seconds:.1f} s: last value taken, {told} changes in the log, whole: {whole}")


if __name__ == "__main__":
    main()
