"""A reader of a kernel's channel that ZeroMQ does not wake."""

from __future__ import annotations

import asyncio
import time
from queue import Empty

import pytest
import zmq
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session

from fusedream_nb.reproduce.kernels import WakefulChannel


def read_unwoken(kind: type[AsyncZMQSocketChannel], seconds: float | None) -> dict:
    """Wait on a channel whose socket tells its news to somebody else, and return the message."""

    async def read() -> dict:
        context, session = zmq.asyncio.Context(), Session(key=b"")
        socket = context.socket(zmq.DEALER)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        channel = kind(socket, session)
        reader = asyncio.ensure_future(channel.get_msg(timeout=seconds))
        await asyncio.sleep(0.1)  # the reader waits now, and its socket has been asked

        other = zmq.Context()
        kernel = other.socket(zmq.DEALER)
        kernel.connect(f"tcp://127.0.0.1:{port}")
        session.send(kernel, "execute_reply", {"status": "ok"})
        while not zmq.Socket.get(socket, zmq.EVENTS) & zmq.POLLIN:  # who asks is told, and the loop never is
            time.sleep(0.01)
        try:
            return await asyncio.wait_for(reader, 4)
        finally:
            other.destroy(linger=0)
            context.destroy(linger=0)

    return asyncio.run(read())


def test_a_plain_channel_sleeps_through_its_answer() -> None:
    with pytest.raises(asyncio.TimeoutError):
        read_unwoken(AsyncZMQSocketChannel, None)


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_a_wakeful_channel_finds_it(seconds: float | None) -> None:
    assert read_unwoken(WakefulChannel, seconds)["content"] == {"status": "ok"}


def test_a_wakeful_channel_gives_up_when_its_time_is_over() -> None:
    async def read() -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
            channel = WakefulChannel(socket, Session(key=b""))
            for seconds in (0.0, 1.5):
                began = time.monotonic()
                with pytest.raises(Empty):
                    await channel.get_msg(timeout=seconds)
                assert time.monotonic() - began >= seconds * 0.99

    asyncio.run(read())
