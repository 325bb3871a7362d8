"""Codecs in processes of their own (`node.adapters.decoder`), started lazily and kept warm.

Invariant: a decoder is in exactly one of three places: idle in the pool, lent to the one thread whose
job it does, or ended. A job that is too slow, breaks the protocol or kills its decoder costs that
decoder and that job, nothing else. One thread starts the decoders and ends the idle ones: a decoder is
told by the kernel to die with the *thread* that started it, and callers' threads come and go.
"""

import contextlib
import io
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from node.domain.errors import Reason, Refusal

_WARM_SECONDS = 30.0  # for a decoder to start and load its libraries
_IDLE_SECONDS = 120.0
_MAX_JOBS = 500
_MAX_HEADER_BYTES = 1 << 20
_GROWN_PARTS = 2  # a decoder that keeps more than memory_bytes / this between jobs is replaced
_WAITING_PER_PROCESS = 32


class _Died(Exception):
    """The decoder ended or broke the protocol."""


class _Decoder:
    """One child process and our end of its socket."""

    def __init__(self, memory_bytes: int, seconds: float) -> None:
        ours, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(memory_bytes), str(seconds), str(os.getpid())]
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own program, no input in the arguments
                [sys.executable, "-I", "-m", "node.adapters.decoder", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd="/",
                # One thread and one heap: the limit is on address space, of which more take a lot.
                env={
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
                    "MALLOC_ARENA_MAX": "1",
                    "LC_ALL": "C.UTF-8",
                },
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.socket = ours
        self.jobs = 0
        self.size = 0
        self.idle_since = time.monotonic()
        try:
            # The first word is how large it is when warm.
            self.size = int.from_bytes(self._receive(8, time.monotonic() + _WARM_SECONDS), "big")
            self.first_size = self.size
        except (_Died, OSError) as error:
            self.end()
            raise Refusal(Reason.UNAVAILABLE, "decoder does not start") from error

    def perform(
        self, order: dict[str, Any], part10: bytes, deadline: float, max_bytes: int
    ) -> tuple[bytes, list[int]]:
        """Do a job; returns its answer and how it divides into frames, if it does.

        Raises Refusal when the decoder declines, TimeoutError, or _Died.
        """
        header = json.dumps({**order, "length": len(part10)}).encode()
        self._send(len(header).to_bytes(4, "big") + header, deadline)
        self._send(part10, deadline)
        self.jobs += 1
        result = io.BytesIO()
        while length := int.from_bytes(self._receive(4, deadline), "big"):
            if result.tell() + length > max_bytes:
                raise _Died
            self._receive_into(result, length, deadline)
        length = int.from_bytes(self._receive(4, deadline), "big")
        if length > _MAX_HEADER_BYTES:
            raise _Died
        try:
            answer = json.loads(self._receive(length, deadline))
            self.size = int(answer["size"])
            lengths = [int(each) for each in answer.get("lengths", ())]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _Died from error
        if "refused" in answer:
            raise Refusal(Reason.NOT_ACCEPTABLE, str(answer["refused"]))
        return result.getvalue(), lengths

    def kill(self) -> None:
        """Kill the process; whoever waits for its answer notices."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def end(self) -> None:
        """Kill the process and wait until it is gone."""
        self.kill()
        self.process.wait()
        self.socket.close()

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            self.socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise _Died from error

    def _receive(self, length: int, deadline: float) -> bytes:
        data = io.BytesIO()
        self._receive_into(data, length, deadline)
        return data.getvalue()

    def _receive_into(self, data: io.BytesIO, length: int, deadline: float) -> None:
        while length > 0:
            try:
                self.socket.settimeout(max(0.001, deadline - time.monotonic()))
                got = self.socket.recv(min(length, 1 << 20))
            except TimeoutError:
                raise
            except OSError as error:
                raise _Died from error
            if not got:
                raise _Died
            data.write(got)
            length -= len(got)


_Reply = queue.SimpleQueue["_Decoder | Exception"]


class ProcessCodecs:
    """The Codecs port on child processes. Thread-safe; not to be used across a fork.

    `processes`: decoders at most. `memory_bytes`: address space of each, and the largest answer.
    `seconds`: wall time of a job, and also how long a call waits for a free decoder; a call that
    waits longer, or finds too many others waiting, gets Refusal(UNAVAILABLE).
    """

    def __init__(self, processes: int, memory_bytes: int, seconds: float) -> None:
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._slots = threading.BoundedSemaphore(processes)
        self._queue = threading.BoundedSemaphore(processes * (1 + _WAITING_PER_PROCESS))
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._lent: set[_Decoder] = set()
        self._closed = False
        self._starter: threading.Thread | None = None
        self._wanted: queue.SimpleQueue[_Reply | None] = queue.SimpleQueue()

    def transcode(self, part10: bytes, transfer_syntax_uid: str) -> bytes:
        """See `node.ports.Codecs`. JPEG Baseline is the one target that loses something."""
        return self._perform({"job": "transcode", "target": transfer_syntax_uid}, part10)[0]

    def decode_frames(self, part10: bytes, frames: Sequence[int]) -> list[bytes]:
        """See `node.ports.Codecs`. Only the frames asked for are decoded."""
        joined, lengths = self._perform({"job": "frames", "frames": list(frames)}, part10)
        found, start = [], 0
        for length in lengths:
            found.append(joined[start : start + length])
            start += length
        return found

    def render(
        self,
        part10: bytes,
        frame: int,
        media_type: str,
        *,
        window: tuple[float, float, str] | None = None,
        viewport: tuple[int, int] | None = None,
        region: tuple[float, float, float, float] | None = None,
        quality: int = 90,
    ) -> bytes:
        """See `node.ports.Codecs`."""
        order = {
            "job": "render",
            "frame": frame,
            "media_type": media_type,
            "window": window,
            "viewport": viewport,
            "region": region,
            "quality": quality,
        }
        return self._perform(order, part10)[0]

    def close(self) -> None:
        """End the decoders; calls under way are refused."""
        with self._lock:
            self._closed = True
            ended, self._idle = self._idle, []
            for decoder in self._lent:
                decoder.kill()
            starter = self._starter
        for decoder in ended:
            decoder.end()
        if starter is not None:
            self._wanted.put(None)
            starter.join()

    def _perform(self, order: dict[str, Any], part10: bytes) -> tuple[bytes, list[int]]:
        if len(part10) > self._memory_bytes:
            raise Refusal(Reason.NOT_ACCEPTABLE, "over the decoder's memory limit")
        if not self._queue.acquire(blocking=False):
            raise Refusal(Reason.UNAVAILABLE, "decoders busy")
        try:
            if not self._slots.acquire(timeout=self._seconds):
                raise Refusal(Reason.UNAVAILABLE, "decoders busy")
            try:
                return self._with_decoder(order, part10)
            finally:
                self._slots.release()
        finally:
            self._queue.release()

    def _with_decoder(self, order: dict[str, Any], part10: bytes) -> tuple[bytes, list[int]]:
        decoder = self._take()
        sound = False
        try:
            deadline = time.monotonic() + self._seconds
            result = decoder.perform(order, part10, deadline, self._memory_bytes)
            sound = True
            return result
        except Refusal:
            sound = True
            raise
        except TimeoutError:
            raise Refusal(Reason.NOT_ACCEPTABLE, "over the decoder's time limit") from None
        except _Died:
            if self._closed:
                raise Refusal(Reason.UNAVAILABLE, "decoders closed") from None
            raise Refusal(Reason.NOT_ACCEPTABLE, "the decoder ended while at it") from None
        finally:
            self._give_back(decoder, sound)

    def _take(self) -> _Decoder:
        """An idle decoder that still lives, or a new one."""
        reply: _Reply = queue.SimpleQueue()
        while True:
            with self._lock:
                self._check_open()
                decoder = self._idle.pop() if self._idle else None
                if decoder is None:
                    # Under the lock, so that `close` cannot end the starter before it has seen this.
                    self._wanted.put(reply)
                    if self._starter is None:
                        self._starter = threading.Thread(target=self._start, name="codecs", daemon=True)
                        self._starter.start()
                    break
                self._lent.add(decoder)
            if decoder.process.poll() is None:
                return decoder
            self._give_back(decoder, sound=False)
        try:
            started = reply.get(timeout=_WARM_SECONDS + self._seconds)
        except queue.Empty:
            raise Refusal(Reason.UNAVAILABLE, "decoder does not start") from None
        if isinstance(started, Exception):
            raise started
        with self._lock:
            self._lent.add(started)
        return started

    def _give_back(self, decoder: _Decoder, sound: bool) -> None:
        grown = decoder.size > decoder.first_size + self._memory_bytes // _GROWN_PARTS
        with self._lock:
            self._lent.discard(decoder)
            keep = sound and not self._closed and decoder.jobs < _MAX_JOBS and not grown
            if keep:
                decoder.idle_since = time.monotonic()
                self._idle.append(decoder)
        if not keep:
            decoder.end()

    def _check_open(self) -> None:
        if self._closed:
            raise Refusal(Reason.UNAVAILABLE, "decoders closed")

    def _start(self) -> None:
        """The starter's thread: starts decoders on request and ends those idle for long, but one."""
        while True:
            try:
                reply = self._wanted.get(timeout=_IDLE_SECONDS / 4)
            except queue.Empty:
                self._reap()
                continue
            if reply is None:
                return
            started: _Decoder | Exception
            try:
                self._check_open()
                started = _Decoder(self._memory_bytes, self._seconds)
            except Exception as error:  # noqa: BLE001 - handed to the caller that asked
                started = error
            reply.put(started)

    def _reap(self) -> None:
        oldest = time.monotonic() - _IDLE_SECONDS
        with self._lock:
            # The last used is at the end and stays: the next caller should not wait for a start.
            stale = [decoder for decoder in self._idle[:-1] if decoder.idle_since < oldest]
            self._idle = [decoder for decoder in self._idle if decoder not in stale]
        for decoder in stale:
            decoder.end()
