"""JupyterLab and Notebook 7 in a headless Chromium: what people see and do, and what a kernel makes of it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

PATIENCE = 180  # seconds until a test gives a condition up; nothing is asserted about time
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
READY = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === "connected" && ["idle", "busy"].includes(kernel.status);
}"""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
LAPTOP = {"width": 1280, "height": 720}  # a panel is off the screen as soon as the next cells run
UNFINISHED = """() => {
    const notebook = window.jupyterapp.shell.currentWidget.content.model.cells;
    const cells = [...Array(notebook.length).keys()].map(i => notebook.get(i)).filter(c => c.type === "code");
    const output = c => [...Array(c.outputs.length).keys()].map(i => c.outputs.get(i).toJSON());
    const failed = cells.flatMap(output).filter(o => o.output_type === "error").map(o => o.evalue);
    return [cells.filter(c => c.executionCount === null && c.sharedModel.source).length, failed];
}"""


def until(condition: Callable[[], Any], told: Callable[[], object] = str) -> Any:
    """Return a condition's first true value; fail, and tell how things stand, where none comes."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, told()
        time.sleep(0.05)
    return found


def chromium_path() -> str | None:
    """Return where the variable CHROMIUM, or else this machine, has one."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)


class Kernel:
    """The kernel behind a notebook, asked without a cell: it answers between two steps."""

    def __init__(self, connection: Path) -> None:
        from jupyter_client.blocking.client import BlockingKernelClient

        self.client = BlockingKernelClient(connection_file=str(connection))
        self.client.load_connection_file()
        self.client.start_channels(hb=False, stdin=False)

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JSON's types, or None where a name is not known yet."""
        told = {"value": f"__import__('json').dumps({expression})"}
        wanted = self.client.execute("", silent=True, user_expressions=told)
        while (reply := self.client.get_shell_msg(timeout=PATIENCE))["parent_header"].get("msg_id") != wanted:
            pass
        value = reply["content"]["user_expressions"]["value"]
        if value["status"] != "ok":
            assert value["ename"] == "NameError", value
            return None
        return json.loads(ast.literal_eval(value["data"]["text/plain"]))

    def wait(self, expression: str) -> Any:
        """Return an expression's first true value."""
        return until(lambda: self.ask(expression), lambda: f"{expression}: {self.ask(expression)}")


class Book:
    """A notebook in the browser."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self.open()

    def open(self) -> None:
        """Open the notebook in a window of its own, and wait for it and its kernel."""
        self.page = self.lab.browser.new_page(viewport=LAPTOP)
        self.page.set_default_timeout(PATIENCE * 1000)
        place = FRONTS[self.lab.front].format(stem=Path(self.name).stem, name=self.name)
        self.page.goto(f"{self.lab.url}/{place}")
        self.until_ready()

    def until_ready(self) -> None:
        """Wait for the notebook and its kernel."""
        self.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell")
        self.page.wait_for_function(READY)

    def reload(self) -> None:
        """Save the notebook, as people do, and reload its page."""
        self.save()
        self.page.reload()
        self.until_ready()

    def run_all(self) -> None:
        """Begin Run All Cells."""
        self.command("notebook:run-all-cells")

    def restart_and_run_all(self) -> None:
        """Begin Restart Kernel and Run All Cells, and say yes."""
        self.command("notebook:restart-run-all")
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        until(lambda: self.page.evaluate(UNFINISHED)[0])
        self.lab.kernels.pop(self.name).client.stop_channels()  # what was asked meanwhile may never be heard

    def until_all_done(self) -> None:
        """Wait until every cell has run; fail where one ends in an error."""

        def done() -> bool:
            left, failed = self.page.evaluate(UNFINISHED)
            assert not failed, failed
            return not left

        until(done, lambda: self.page.evaluate(UNFINISHED))

    @property
    def kernel(self) -> Kernel:
        """The kernel of this notebook."""
        return self.lab.kernel(self.name)

    def command(self, name: str) -> None:
        """Begin what a menu's entry does."""
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name) }", name)

    def run(self, cell: int) -> None:
        """Begin to run a cell."""
        active = "cell => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = cell }"
        self.page.evaluate(active, cell)
        self.command("notebook:run-cell")

    def until_done(self, cell: int) -> None:
        """Wait for a cell's end; fail where it ends in an error."""
        found = self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{cell}']")
        prompt = found.locator(".jp-InputPrompt")
        until(lambda: re.fullmatch(r"\[\d+\]:", prompt.inner_text().strip()), prompt.inner_text)
        assert not found.locator(".jp-OutputArea-output[data-mime-type*='error']").count(), found.inner_text()

    def panel(self, which: int = 0) -> Any:
        """Return a panel, once it is there."""
        found = self.page.locator(".jp-OutputArea-output:has(.widget-button)").nth(which)
        found.wait_for()
        return Panel(self.page, found)

    def save(self) -> None:
        """Save the notebook, as Ctrl-S does."""
        self.command("docmanager:save")
        self.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")

    def close(self) -> None:
        """Save the notebook and close its window."""
        self.save()
        self.page.close(run_before_unload=False)


class Panel:
    """A panel on the screen, and a person's hands on it."""

    def __init__(self, page: Any, root: Any) -> None:
        self.page, self.root = page, root

    def control(self, label: str) -> Any:
        """Return a control by its label."""
        return self.root.locator(f".widget-inline-hbox:has(.widget-label:text-is('{label}'))")

    def drag(self, label: str, share: float) -> None:
        """Drag a slider's handle with the mouse to a share of its way."""
        control = self.control(label)
        control.scroll_into_view_if_needed()
        way = control.locator(".noUi-base, .ui-slider").bounding_box()
        hand = control.locator(".noUi-handle, .ui-slider-handle").bounding_box()
        across, down = hand["x"] + hand["width"] / 2, hand["y"] + hand["height"] / 2
        self.page.mouse.move(across, down)
        self.page.mouse.down()
        self.page.mouse.move(way["x"] + share * way["width"], down, steps=4)
        self.page.mouse.up()

    def click(self, name: str) -> None:
        """Click a button."""
        self.root.locator(f"button.widget-button:text-is('{name}')").click()

    def write(self, label: str, text: str) -> None:
        """Type a text, and leave the field."""
        field = self.control(label).locator("textarea, input[type=text]")
        field.fill(text)
        field.blur()

    def type(self, label: str, text: str) -> None:
        """Type a number beside a slider."""
        readout = self.control(label).locator(".widget-readout")
        readout.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")

    def press(self, label: str, key: str) -> None:
        """Press a key on a slider."""
        self.control(label).locator(".noUi-handle, .ui-slider-handle").press(key)

    def text(self) -> str:
        """Return all that stands on the panel."""
        return self.root.inner_text()

    def readout(self, label: str) -> str:
        """Return the number beside a slider."""
        return self.control(label).locator(".widget-readout").inner_text()

    def look(self) -> Image.Image:
        """Scroll to the picture and look: its box is as large as it should be; return what is seen there."""
        self.root.scroll_into_view_if_needed()
        picture = self.root.locator("img.widget-image").first
        picture.evaluate("image => image.scrollIntoView({block: 'center'})")
        box = picture.bounding_box()
        assert box and box["width"] > 500 and box["height"] == 256, box
        return Image.open(BytesIO(self.page.screenshot(clip=box))).convert("RGB")

    def watch(self) -> None:
        """Look until there is a picture, and until it changes."""
        seen = until(lambda: (image := self.look()).getcolors(16) is None and image, self.text)
        until(lambda: self.look().tobytes() != seen.tobytes(), self.text)

    def picture(self) -> str:
        """Return the picture's bytes."""
        return self.root.locator("img.widget-image").first.evaluate(
            "async img => [...new Uint8Array(await (await fetch(img.src)).arrayBuffer())].join()"
        )

    def marks(self) -> list[str]:
        """Return what the marks in the curves say."""
        return self.root.locator("svg title").all_text_contents()


class Lab:
    """A Jupyter of our own, with folders of its own, and a browser that looks at it."""

    def __init__(self, folder: Path, browser: Any, url: str, front: str) -> None:
        self.folder, self.browser, self.url, self.front = folder, browser, url, front
        self.kernels: dict[str, Kernel] = {}

    def write(self, name: str, *cells: str) -> str:
        """Write a notebook of code cells."""
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, self.folder / name)
        return name

    def open(self, name: str) -> Book:
        """Open a notebook in a tab, and wait for its kernel."""
        return Book(self, name)

    def kernel(self, name: str) -> Kernel:
        """Return the kernel that a notebook runs on."""
        if name not in self.kernels:
            with urllib.request.urlopen(f"{self.url}/api/sessions") as reply:
                (session,) = [each for each in json.load(reply) if each["path"] == name]
            path = self.folder / "jupyter" / "runtime" / f"kernel-{session['kernel']['id']}.json"
            self.kernels[name] = Kernel(path)
        return self.kernels[name]


FRONTS = {"jupyterlab": "lab/workspaces/{stem}/tree/{name}", "notebook": "notebooks/{name}"}


@contextmanager
def serving(python: str, folder: Path, front: str) -> Iterator[str]:
    """Serve a folder with an interpreter's front end, on a free port; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder / "jupyter"
    places = {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "data", "runtime")}
    environment = {**os.environ, **places, "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(home / "workspaces")
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [
        python, "-m", front, "--no-browser", "--expose-app-in-browser", "--allow-root",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    with (folder / "jupyter.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"

    def there() -> bool:
        assert server.poll() is None, (folder / "jupyter.log").read_text()
        with suppress(OSError), urllib.request.urlopen(f"{url}/api/status"):
            return True
        return False

    try:
        until(there, (folder / "jupyter.log").read_text)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)  # it ends its kernels
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """What waits for a condition."""
    return until


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium; without one, or without playwright or JupyterLab, the test is skipped."""
    if missing := [name for name in ("playwright", "jupyterlab") if find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed; python -m pip install -e '.[test,notebook]'")
    path = chromium_path()
    if path is None:
        pytest.skip("There is no Chromium here; install one, or name it in CHROMIUM.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def build(folder: Path, requirements: Sequence[str]) -> Path:
    """Build an environment of some packages, on top of this one's; return its interpreter."""
    python = folder / "bin" / "python"
    if uv := shutil.which("uv"):
        commands = [[uv, "venv", "-q", "--python", sys.executable, folder]]
        commands += [[uv, "pip", "install", "-q", "--python", python, *requirements]]
    else:
        commands = [[sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", *requirements]]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(
                f"No environment of {', '.join(requirements)} can be built here: {done.stderr[-300:]}"
            )
    (there,) = folder.glob("lib/python*/site-packages")
    here = sysconfig.get_paths()["purelib"]  # what is not in the new environment comes from this one
    (there / "zz_below.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return python


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """What builds an environment of some packages."""
    return lambda *requirements: build(tmp_path_factory.mktemp("environment"), requirements)


@contextmanager
def laboratory(python: Path | str, browser: Any, folder: Path, front: str = "jupyterlab") -> Iterator[Lab]:
    """Yield an interpreter's JupyterLab or Notebook 7, with its files in a folder."""
    with serving(str(python), folder, front) as url:
        lab = Lab(folder, browser, url, front)
        try:
            yield lab
        finally:
            for kernel in lab.kernels.values():
                kernel.client.stop_channels()


@pytest.fixture(scope="session")
def lab_of() -> Callable[..., Any]:
    """What opens an interpreter's JupyterLab or Notebook 7."""
    return laboratory


@pytest.fixture(scope="module")
def lab(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """This environment's JupyterLab."""
    with laboratory(sys.executable, chromium, tmp_path_factory.mktemp("lab")) as lab:
        yield lab
