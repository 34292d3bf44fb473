"""The panel on a real kernel: what a browser sends while the run goes on, and what it gets back."""

from __future__ import annotations

import json
import queue
import time

import pytest
from jupyter_client.manager import start_new_kernel

SETUP = """
import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
models = fd.load(device="cpu")
tiny = Budget("tiny", M=4, k=2, steps=100_000, copies=2, lr=0.02, start_copies=1, judged_copies=2)
"""
LIVE = """
session = fd.live(fd.fusedream("a blue dog", models, seed=3, budget=tiny), out="made")
other = fd.live(fd.fusedream("a red car", models, seed=4, budget=tiny), mode="inline", panel=True)
"""


class Notebook:
    """A kernel, and what a front end keeps of its widgets: their states, and how often each changed."""

    def __init__(self, folder: str) -> None:
        self.manager, self.client = start_new_kernel(cwd=folder, startup_timeout=120)
        self.models: dict[str, dict] = {}
        self.pictures: list[tuple[float, str]] = []

    def run(self, code: str, timeout: float = 240) -> str:
        """Run a cell; return what it printed."""
        reply = self.client.execute_interactive(code, timeout=timeout, output_hook=self.hear)
        assert reply["content"]["status"] == "ok", reply["content"]
        printed, self.printed = getattr(self, "printed", ""), ""
        return printed

    def hear(self, message: dict) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            self.printed = getattr(self, "printed", "") + content["text"]
        elif kind == "comm_open":
            self.models[content["comm_id"]] = dict(content["data"]["state"])
        elif kind == "comm_msg" and content["data"].get("method") == "update":
            self.models[content["comm_id"]].update(content["data"]["state"])
            if ["value"] in content["data"].get("buffer_paths", []):
                self.pictures.append((time.monotonic(), content["comm_id"], bytes(message["buffers"][0])))

    def listen(self, seconds: float) -> None:
        """Hear what the kernel says of its own accord."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                self.hear(self.client.get_iopub_msg(timeout=left))
            except queue.Empty:
                return

    def ask(self, expression: str) -> object:
        return json.loads(self.run(f"import json; print(json.dumps({expression}))"))

    def find(self, label: str, which: int = 0) -> str:
        return [i for i, state in self.models.items() if state.get("description") == label][which]

    def send(self, comm: str, data: dict) -> None:
        message = self.client.session.msg("comm_msg", {"comm_id": comm, "data": data})
        self.client.shell_channel.send(message)

    def drag(self, label: str, value: object, which: int = 0) -> None:
        state = {"method": "update", "state": {"value": value}, "buffer_paths": []}
        self.send(self.find(label, which), state)

    def click(self, label: str) -> None:
        self.send(self.find(label), {"method": "custom", "content": {"event": "click"}})

    def step(self) -> int:
        return self.ask("session.step.index")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    """A notebook whose second cell has begun a session, which goes on."""
    book = Notebook(str(tmp_path_factory.mktemp("notebook")))
    book.run(SETUP)
    book.run(LIVE)
    yield book
    book.client.stop_channels()
    book.manager.shutdown_kernel(now=True)


def wait_for(notebook: Notebook, expression: str, seconds: float = 60) -> object:
    end = time.monotonic() + seconds
    while not (found := notebook.ask(expression)):
        assert time.monotonic() < end, notebook.ask("[session.status, session.message]")
        notebook.listen(0.1)
    return found


def test_a_slider_reaches_the_run_while_it_goes_on(notebook: Notebook) -> None:
    wait_for(notebook, "session.step is not None and session.step.index > 1")
    before = notebook.step()
    notebook.drag("Learning rate", 0.05)
    notebook.listen(0.5)
    notebook.drag("Cutout", 0.25)
    log = wait_for(notebook, "len(session.run.log) > 1 and session.run.log")
    assert [{k: v for k, v in entry.items() if k != "step"} for entry in log] == [
        {"lr": 0.05},
        {"cutout": 0.25},
    ]
    assert before <= log[0]["step"] <= log[1]["step"]
    wait_for(notebook, f"session.step.index > {log[1]['step']}")
    assert notebook.ask("[session.step.knobs['lr'], session.run.knobs['cutout']]") == [0.05, 0.25]
    assert notebook.ask("[other.run.wanted['lr'], other.run.log]") == [0.02, []]


def test_the_picture_grows_and_is_sent_five_times_a_second_at_most(notebook: Notebook) -> None:
    notebook.pictures.clear()
    notebook.listen(6)
    assert len({image for _, _, image in notebook.pictures}) > 1
    assert len({comm for _, comm, _ in notebook.pictures}) == 1
    assert len(notebook.pictures) <= 6 * 5 + 1
    assert all(image.startswith(b"\x89PNG") for _, _, image in notebook.pictures)
    shown = [state["value"] for state in notebook.models.values() if "step/s" in str(state.get("value"))]
    assert shown
    assert all("MB" in text and "playing" in text for text in shown)


def test_many_events_lose_no_last_value(notebook: Notebook) -> None:
    for i in range(300):
        notebook.drag("Noise", i / 1000)
        time.sleep(0.002)
    wait_for(notebook, "session.run.knobs['noise'] == 0.299")
    steps = notebook.ask("[e['step'] for e in session.run.log if 'noise' in e]")
    assert steps == sorted(set(steps))
    notebook.drag("Noise", 0.0)
    wait_for(notebook, "session.run.knobs['noise'] == 0")


def test_pause_step_words_save_and_replay(notebook: Notebook) -> None:
    notebook.click("Pause")
    wait_for(notebook, "session.status == 'paused'")
    notebook.listen(0.5)
    still = notebook.step()
    notebook.listen(1)
    assert notebook.step() == still
    notebook.click("Step")
    wait_for(notebook, f"session.step.index == {still + 1}")
    notebook.listen(0.5)
    assert notebook.step() == still + 1
    notebook.drag("Words", "a red car")
    notebook.click("Play")
    wait_for(notebook, f"session.step.index > {still + 2}")
    assert notebook.ask("session.run.knobs['prompt']") == ["a red car"]
    notebook.click("Pause")
    wait_for(notebook, "session.status == 'paused'")
    notebook.click("Save")
    (path,) = wait_for(notebook, "[str(path) for path in session.saved]")
    assert path.endswith(".png")
    assert notebook.ask(f"fd.replay({path!r})[1]") == 0


def test_a_refused_value_is_told_and_its_control_goes_back(notebook: Notebook) -> None:
    notebook.drag("Words", " ")
    notebook.click("Step")
    wait_for(notebook, "'prompt is empty' in session.message")
    notebook.listen(0.5)
    assert notebook.models[notebook.find("Words")]["value"] == "a red car"


def test_reset_and_the_result_in_a_later_cell(notebook: Notebook) -> None:
    notebook.drag("Next seed", 9)
    notebook.drag("Steps", 3)
    notebook.click("Reset")
    wait_for(notebook, "session.run.config.seeds == [9]")
    assert notebook.ask("session.result().index") == 3
    assert notebook.ask("[other.step, other.status]") == [None, "playing"]  # nobody asked for its result
    labels = [
        state for state in notebook.models.values() if "description_tooltip" in state or "tooltip" in state
    ]
    controls = [
        s
        for s in labels
        if s.get("_model_name", "").endswith(("SliderModel", "ButtonModel", "TextareaModel"))
    ]
    assert len(controls) > 20
    assert all(s["description"] and (s.get("tooltip") or s.get("description_tooltip")) for s in controls)
