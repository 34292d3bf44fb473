"""Kernels whose answers are not slept through: what ``reproduce`` runs notebooks with.

ZeroMQ tells of news on a socket once. If something else looks at the socket in between (sending past the
event loop does, so that is our guess), a reader that waits in an event loop is not woken and sleeps on
before its answer, for ever. On a machine with more to do than cores that befell a notebook in three. Here
a reader looks each second.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

AGAIN = 1.0  # seconds


class WakefulChannel(AsyncZMQSocketChannel):
    """A channel that asks its socket anew while it waits."""

    async def get_msg(  # type: ignore[override]
        self, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return the next message; raises Empty if none has come after so many seconds (None: waits on)."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = AGAIN if end is None else end - time.monotonic()
            try:
                return await super().get_msg(min(max(left, 0), AGAIN))
            except Empty:
                if end is not None and time.monotonic() >= end:
                    raise


class WakefulClient(AsyncKernelClient):
    """A kernel's client with such channels."""

    shell_channel_class = Type(WakefulChannel)
    iopub_channel_class = Type(WakefulChannel)
    stdin_channel_class = Type(WakefulChannel)
    control_channel_class = Type(WakefulChannel)


class WakefulManager(AsyncKernelManager):
    """A kernel's manager with such clients: ``NotebookClient(…, kernel_manager_class=WakefulManager)``."""

    client_factory = Type(WakefulClient)
