"""Start of the decoder process: warm up, give up privileges, work until the socket closes."""

import json
import os
import resource
import socket
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from node.adapters.decoder import codestreams, sandbox
from node.adapters.decoder.image import Image
from node.adapters.decoder.part10 import read, refuse
from node.adapters.decoder.render import Order, render
from node.adapters.decoder.transcode import transcode
from node.domain.errors import Refusal

Piece = bytes | memoryview
_PIECE_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 20


def main(arguments: list[str]) -> None:
    """Arguments: the socket's descriptor, memory in bytes, seconds a job, the parent's process id."""
    descriptor, memory_bytes, parent = int(arguments[0]), int(arguments[1]), int(arguments[3])
    seconds = float(arguments[2])
    sandbox.die_with(parent)
    channel = socket.socket(fileno=descriptor)
    # All that is loaded lazily is loaded now: later there are no files any more.
    Pillow.init()
    codestreams.warm_up()
    sandbox.enter(memory_bytes, parent)
    channel.sendall(_in_use().to_bytes(8, "big"))
    while head := channel.recv(4, socket.MSG_WAITALL):
        order = json.loads(_exactly(channel, int.from_bytes(head, "big"), _MAX_HEADER_BYTES))
        sandbox.allow_cpu(seconds)
        _serve(channel, order, memory_bytes)


def _serve(channel: socket.socket, order: dict[str, Any], memory_bytes: int) -> None:
    answer: dict[str, Any] = {}
    try:
        data = _exactly(channel, int(order["length"]), memory_bytes)
        room = max(0, memory_bytes - _in_use())
        lengths: list[int] = []
        for piece in _perform(order, memoryview(data), room):
            lengths.append(len(piece))
            for at in range(0, len(piece), _PIECE_BYTES):
                part = memoryview(piece)[at : at + _PIECE_BYTES]
                channel.sendall(len(part).to_bytes(4, "big"))
                channel.sendall(part)
        if order["job"] == "frames":
            answer["lengths"] = lengths
    except Refusal as refusal:
        answer["refused"] = refusal.comment
    except MemoryError:
        answer["refused"] = "over the decoder's memory limit"
    except Exception as error:  # noqa: BLE001 - a hole in our checks costs the job, and says where it is
        frames = traceback.extract_tb(error.__traceback__)
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames][-1]
        answer["refused"] = f"not understood ({type(error).__name__} at {where})"
    answer["size"] = _in_use()
    header = json.dumps(answer).encode()
    channel.sendall(b"\0\0\0\0" + len(header).to_bytes(4, "big") + header)


def _perform(order: dict[str, Any], data: memoryview, max_bytes: int) -> Iterable[Piece]:
    part10 = read(data, max_bytes)
    if order["job"] == "transcode":
        return transcode(part10, order["target"], max_bytes)
    if order["job"] == "frames":
        image = Image(part10, max_bytes)
        if len(order["frames"]) * image.geometry.decoded_frame_bytes > max_bytes:
            raise refuse("frames are over the memory limit")
        return (image.native(frame - 1) for frame in order["frames"])
    window, viewport, region = (
        tuple(order[name]) if order[name] else None for name in ("window", "viewport", "region")
    )
    wanted = Order(
        order["frame"] - 1,
        order["media_type"],
        window,
        viewport,
        region,
        order["quality"],
    )
    return [render(part10, wanted, max_bytes)]


def _exactly(channel: socket.socket, length: int, limit: int) -> bytearray:
    """The next `length` bytes; MemoryError, with the bytes taken and dropped, if there is no room."""
    try:
        if length > limit:
            raise MemoryError
        data = bytearray(length)
    except MemoryError:
        scrap = memoryview(bytearray(_PIECE_BYTES))
        while length:
            length -= _some(channel, scrap[:length])
        raise
    view = memoryview(data)
    while view:
        view = view[_some(channel, view) :]
    return data


def _some(channel: socket.socket, view: memoryview) -> int:
    got = channel.recv_into(view)
    if not got:
        raise SystemExit("the parent is gone")
    return got


_PAGE_BYTES = resource.getpagesize()
_STATM = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def _in_use() -> int:
    """Address space in use, in bytes."""
    os.lseek(_STATM, 0, os.SEEK_SET)
    return int(os.read(_STATM, 64).split()[0]) * _PAGE_BYTES


if __name__ == "__main__":
    main(sys.argv[1:])
