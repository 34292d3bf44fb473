"""What the tests of models share: a server that plays the mirrors, faults and all; weights of a BigGAN."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import standins
import torch
from torch import Tensor, nn

PAGE = b"<html><body>Quota exceeded. Sign in to download.</body></html>"
FAULTS = (
    "wrong",
    "half",
    "half, unannounced",
    "more",
    "empty",
    "page",
    "hang up",
    "stall",
    "loop",
    403,
    404,
    500,
    503,
)


class Mirror(ThreadingHTTPServer):
    """Answers ``/any/path`` by the next behaviour in its script, "right" or a fault; the last one stays."""

    daemon_threads = True

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.scripts, self.asked = content, {}, []
        self.contents: dict[str, bytes] = {}  # of addresses that have one of their own
        self.stalled, self.released = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, name: str, *script: str | int, content: bytes | None = None) -> str:
        """Return an address that behaves by a script, with a content of its own or the server's."""
        self.scripts[f"/{name}"] = deque(script or ("right",))
        if content is not None:
            self.contents[f"/{name}"] = content
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        if self.path not in self.server.scripts:
            return self.send_error(404)
        script = self.server.scripts[self.path]
        self.content = self.server.contents.get(self.path, self.server.content)
        act = script.popleft() if len(script) > 1 else script[0]
        self.server.asked.append(self.path)
        if act == "hang up":
            return
        if isinstance(act, int):
            self.send_error(act)
        elif act == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
        elif act in ("page", "empty"):
            self._send(PAGE if act == "page" else b"")
        else:
            self._file(act)

    def _file(self, act: str) -> None:
        body = bytearray(self.content)
        if act == "wrong":
            body[len(body) // 2] ^= 1
        elif act == "more":
            body += b"more"
        whole = act in ("right", "wrong", "more")
        sent = body if whole else body[: len(body) // 2]
        announced = None if act == "half, unannounced" else len(body)
        self._send(bytes(sent), announced)
        if act == "stall":
            self.wfile.flush()
            self.server.stalled.set()
            self.server.released.wait()

    def _send(self, body: bytes, announced: int | None = -1) -> None:
        self.send_response(200)
        if announced is not None:
            self.send_header("Content-Length", str(len(body) if announced < 0 else announced))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def release() -> Callable[..., dict[str, torch.Tensor]]:
    """Return the function that makes random weights of a BigGAN."""
    return standins.biggan


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server with 300 kB that no compression shortens, and downloads that are switched on."""
    for name in ("FUSEDREAM_OFFLINE", "HF_HUB_OFFLINE", "FUSEDREAM_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    server = Mirror(bytes(i * i % 251 ^ i % 13 for i in range(300_000)))
    yield server
    server.stop()


@pytest.fixture
def agree() -> Callable[[nn.Module, nn.Module, Tensor, float], None]:
    """Assert that two networks give the same at x, and the same gradient in x of a function of it."""

    def value_and_slope(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        y = network(x)
        return y.detach(), torch.autograd.grad((3 * y / y.detach().abs().max()).sin().sum(), x)[0]

    def check(mine: nn.Module, theirs: nn.Module, x: Tensor, within: float) -> None:
        for a, b in zip(value_and_slope(mine, x), value_and_slope(theirs, x), strict=True):
            torch.testing.assert_close(a, b, atol=within * float(b.abs().max()), rtol=10 * within)

    return check
