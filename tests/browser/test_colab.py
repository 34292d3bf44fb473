"""A Colab of our own: its versions, a stub of google.colab, no browser; knobs reach a running cell."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

VERSIONS = ("ipython==7.34.0", "ipykernel==6.17.1", "ipywidgets==7.7.1", "jupyter-ui-poll>=1.1", "setuptools")
LIVE = """
import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
models = fd.load(device="cpu")
tiny = Budget("tiny", M=4, k=2, steps=100_000, copies=2, lr=0.02, start_copies=1, judged_copies=2)
session = fd.live(fd.fusedream("a blue dog", models, seed=3, budget=tiny), out="made")
"""
TOLD = """
import json, IPython, ipykernel, ipywidgets
print(json.dumps({
    "versions": [IPython.__version__, ipykernel.__version__, ipywidgets.__version__],
    "log": session.run.log, "status": session.status, "last": session.result().index,
    "off": fd.replay(session.save()[0])[1],
}))
"""


class Front:
    """A front end without a screen: it keeps the widgets' states, and sends what a person would."""

    def __init__(self, manager: KernelManager) -> None:
        self.client = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=180)
        self.widgets: dict[str, dict] = {}
        self.printed, self.idle = "", ""

    def run(self, code: str) -> str:
        """Begin to run a cell; return its message's id."""
        self.printed = ""
        return self.client.execute(code)

    def hear(self) -> None:
        """Take what the kernel says next."""
        message = self.client.get_iopub_msg(timeout=180)
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            self.printed += content["text"]
        elif kind == "error":
            raise AssertionError("\n".join(content["traceback"]))
        elif kind == "status" and content["execution_state"] == "idle":
            self.idle = message["parent_header"]["msg_id"]
        elif kind == "comm_open":
            self.widgets[content["comm_id"]] = dict(content["data"]["state"])
        elif kind == "comm_msg" and content["data"].get("method") == "update":
            self.widgets[content["comm_id"]].update(content["data"]["state"])

    def hear_until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + 240
        while not (found := condition()):
            assert time.monotonic() < end, [self.printed, self.shown()]
            self.hear()
        return found

    def shown(self) -> str:
        """Return what the panel's line says."""
        return next((s["value"] for s in self.widgets.values() if "step/s" in str(s.get("value"))), "")

    def send(self, label: str, data: dict) -> None:
        (comm,) = [i for i, state in self.widgets.items() if state.get("description") == label]
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        self.client.shell_channel.send(message)

    def drag(self, label: str, value: object) -> None:
        self.send(label, {"method": "update", "state": {"value": value}, "buffer_paths": []})

    def click(self, label: str) -> None:
        self.send(label, {"method": "custom", "content": {"event": "click"}})


@pytest.fixture(scope="module")
def front(environment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A kernel of Colab's versions in which google.colab has been imported."""
    folder = tmp_path_factory.mktemp("colab")
    (folder / "google" / "colab").mkdir(parents=True)
    (folder / "google" / "colab" / "__init__.py").touch()
    manager = KernelManager(kernel_name="python3")
    python = str(environment(*VERSIONS))
    manager.kernel_spec.argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    manager.start_kernel(cwd=str(folder), env={**os.environ, "PYTHONPATH": path})
    front = Front(manager)
    yield front
    front.client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_in_colab_the_cell_goes_on_and_hears_its_knobs(front: Front) -> None:
    front.run("import google.colab")
    cell = front.run(LIVE)
    front.hear_until(lambda: "playing" in front.shown() and "step 0 of" not in front.shown())
    front.drag("Cutout", 0.25)
    front.drag("Copies", 3)
    before = front.shown()
    front.hear_until(lambda: front.shown() != before)
    front.click("Pause")
    front.hear_until(lambda: "paused" in front.shown())
    assert front.idle != cell  # it still runs
    front.click("Stop")
    front.hear_until(lambda: front.idle == cell)
    asked = front.run(TOLD)
    front.hear_until(lambda: front.idle == asked)
    told = json.loads(front.printed)
    assert told["versions"] == ["7.34.0", "6.17.1", "7.7.1"]
    turned = {k: v for entry in told["log"] for k, v in entry.items() if k != "step"}
    assert turned == {"cutout": 0.25, "copies": 3}
    assert len(told["log"]) == 2
    assert (told["status"], told["off"]) == ("stopped", 0)
    assert told["last"] >= told["log"][-1]["step"] > 0
