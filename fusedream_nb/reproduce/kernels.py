"""Kernels whose answers are not slept through.

ZeroMQ reports news on a socket once. Where something else looks at the socket in between, a reader in an
event loop is not woken, and sleeps on before its answer for ever: on a busy machine one notebook in three.
``tests/reproduce/test_kernels.py`` shows it with jupyter_client's own channel; once that one wakes up, this
module can go.
"""

from __future__ import annotations

from contextlib import suppress
from queue import Empty
from typing import Any

from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

AGAIN = 1.0  # seconds


class WakefulChannel(AsyncZMQSocketChannel):
    """A channel that asks its socket again each second while it waits."""

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        """Return the next message; raises Empty if none has come after so many seconds (None: waits on)."""
        while timeout is None or timeout > AGAIN:
            with suppress(Empty):
                return await super().get_msg(AGAIN)
            timeout = timeout and timeout - AGAIN
        return await super().get_msg(timeout)


class WakefulClient(AsyncKernelClient):
    """A kernel's client with such channels."""

    shell_channel_class = Type(WakefulChannel)
    iopub_channel_class = Type(WakefulChannel)
    stdin_channel_class = Type(WakefulChannel)
    control_channel_class = Type(WakefulChannel)


class WakefulManager(AsyncKernelManager):
    """A kernel's manager with such clients: ``NotebookClient(…, kernel_manager_class=WakefulManager)``."""

    client_factory = Type(WakefulClient)
