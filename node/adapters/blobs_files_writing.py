"""Writing objects as files: blanks made ahead, filled once, and synced once.

A blank is an empty file that has its name already: made with others of the same folder by `Blanks`, which
then syncs that folder. So when an object is written, its name is on the disk, and one fsync of the file
makes it durable: half of what creating, syncing and naming it would cost while somebody waits.

A blank is writable by its owner, an object is not (mode 0600 and 0400): the mode says which is which. It
changes before the fsync that makes an object durable, so that one fsync carries bytes and mode.
"""

import errno
import fcntl
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from node.adapters.blobs_common import pack
from node.domain.errors import Reason, Refusal

BLANKS_AT_ONCE = 32  # made with one fsync
SYNC_EVERY_BYTES = 2 << 20  # so that no fsync of a small object waits for much of a large one
BLANK_MODE = 0o600
OBJECT_MODE = 0o400

FOOTER = struct.Struct("<8sQII")  # magic, length of data, length of attributes, CRC-32 (see checksum)
MAGIC = b"STELEob1"
_FOOTER_CHECKED = struct.Struct("<8sQI")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class SystemCalls:
    """The operating system's calls that make, write and remove files."""

    def open(self, path: str, flags: int) -> int:
        """open(2) with mode 0600."""
        return os.open(path, flags, 0o600)

    def write(self, descriptor: int, data: memoryview) -> int:
        """write(2): returns how many bytes were taken."""
        return os.write(descriptor, data)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        """pread(2)."""
        return os.pread(descriptor, length, offset)

    def fsync(self, descriptor: int) -> None:
        """fsync(2)."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """close(2)."""
        os.close(descriptor)

    def fchmod(self, descriptor: int, mode: int) -> None:
        """fchmod(2)."""
        os.fchmod(descriptor, mode)

    def lock(self, descriptor: int) -> bool:
        """flock(2), exclusively, without waiting: whether we have it now."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlink(self, path: str) -> None:
        """unlink(2)."""
        os.unlink(path)  # noqa: PTH108 (paths are plain strings on the way of every object)

    def mkdir(self, path: str) -> None:
        """mkdir(2) with mode 0700."""
        os.mkdir(path, 0o700)  # noqa: PTH102


class Blank(NamedTuple):
    """An empty file with a name, open for writing."""

    name: str
    path: str
    descriptor: int


class Blanks:
    """The blanks of one process, made by a thread of their own as they are taken."""

    def __init__(self, root: str, calls: SystemCalls, at_once: int) -> None:
        self._root = root
        self._calls = calls
        self._at_once = at_once
        self._ready = threading.Condition()
        self._blanks: list[Blank] = []
        self._failed: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def take(self) -> Blank:
        """One that nobody else has. OSError if none can be made now."""
        with self._ready:
            if self._thread is None:
                self._thread = threading.Thread(target=self._make_ahead, name="blanks", daemon=True)
                self._thread.start()
            self._failed = None
            while not self._blanks and self._failed is None and not self._closed:
                self._ready.notify_all()
                self._ready.wait()
            if not self._blanks:
                raise self._failed or OSError(errno.EBADF, "the store is closed")
            blank = self._blanks.pop()
            if len(self._blanks) < self._at_once // 2 + 1:
                self._ready.notify_all()
            return blank

    def close(self) -> None:
        """Remove what was not taken."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
            blanks, self._blanks = self._blanks, []
            thread = self._thread
        if thread is not None:
            thread.join()
        for blank in blanks:
            discard(self._calls, blank.path, blank.descriptor)

    def _make_ahead(self) -> None:
        while True:
            with self._ready:
                while not self._closed and (
                    len(self._blanks) > self._at_once // 2 or self._failed is not None
                ):
                    self._ready.wait()
                if self._closed:
                    return
            made: list[Blank] = []
            try:
                self._make(made)
            except Exception as error:  # noqa: BLE001 - whoever waits for a blank raises it
                with self._ready:
                    self._failed = error
                    self._ready.notify_all()
                for blank in made:
                    discard(self._calls, blank.path, blank.descriptor)
                continue
            with self._ready:
                kept = not self._closed
                if kept:
                    self._blanks += made
                    self._ready.notify_all()
            if not kept:
                for blank in made:
                    discard(self._calls, blank.path, blank.descriptor)

    def _make(self, made: list[Blank]) -> None:
        prefix = secrets.token_hex(1)
        for _ in range(self._at_once):
            name = prefix + secrets.token_hex(15)
            path = f"{self._root}/{prefix}/{name}"
            blank = Blank(name, path, self._calls.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
            made.append(blank)
            self._calls.lock(blank.descriptor)
        sync_folder(self._calls, f"{self._root}/{prefix}")


class FileWriter:
    """A blank being filled; see `node.ports.BlobWriter`. `room_for(length)` refuses what must not fit."""

    def __init__(self, blank: Blank, calls: SystemCalls, room_for: Callable[[int], None]) -> None:
        self.name = blank.name
        self._blank = blank
        self._calls = calls
        self._room_for = room_for
        self._length = 0
        self._not_synced = 0
        self._open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; see the port."""
        if not self._open:
            raise ValueError("the writer is closed")
        try:
            self._room_for(len(data) if not isinstance(data, memoryview) else data.nbytes)
            written = append(self._calls, self._blank.descriptor, data)
            self._length += written
            self._not_synced += written
            if self._not_synced >= SYNC_EVERY_BYTES:
                self._calls.fsync(self._blank.descriptor)
                self._not_synced = 0
        except OSError as error:
            self.abort()  # a failed write or fsync is never tried again: the kernel may have dropped pages
            raise refusal(error) from error
        except Refusal:
            self.abort()
            raise

    def commit(self, attributes: dict[str, bytes]) -> None:
        """Make it durable and visible; see the port."""
        if not self._open:
            raise ValueError("the writer is closed")
        packed = pack(attributes)
        footer = FOOTER.pack(MAGIC, self._length, len(packed), checksum(self._length, packed))
        try:
            append(self._calls, self._blank.descriptor, packed + footer)
            self._calls.fchmod(self._blank.descriptor, OBJECT_MODE)
            self._calls.fsync(self._blank.descriptor)
        except OSError as error:
            self.abort()
            raise refusal(error) from error
        self._open = False
        with suppress(OSError):  # it was synced
            self._calls.close(self._blank.descriptor)

    def abort(self) -> None:
        """Throw away what was written; see the port."""
        if self._open:
            self._open = False
            discard(self._calls, self._blank.path, self._blank.descriptor)


def append(calls: SystemCalls, descriptor: int, data: bytes | bytearray | memoryview) -> int:
    """Write all of `data`; returns its length in bytes."""
    with memoryview(data) as whole, whole.cast("B") as view:
        done = 0
        while done < len(view):
            done += calls.write(descriptor, view[done:])
        return done


def discard(calls: SystemCalls, path: str, descriptor: int) -> None:
    """Close and remove a file that nobody will miss; what cannot be removed now is swept later."""
    with suppress(OSError):
        calls.unlink(path)
    with suppress(OSError):
        calls.close(descriptor)


def sync_folder(calls: SystemCalls, folder: str) -> None:
    """Make the names in a folder durable."""
    descriptor = calls.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        calls.fsync(descriptor)
    finally:
        calls.close(descriptor)


def checksum(size: int, packed: bytes) -> int:
    """CRC-32 of the footer's other fields and the attributes."""
    return zlib.crc32(_FOOTER_CHECKED.pack(MAGIC, size, len(packed)), zlib.crc32(packed))


def refusal(error: OSError) -> Refusal:
    """What a failed system call means to the client. The error itself stays as the cause, for the log."""
    if error.errno in _NO_ROOM:
        return Refusal(Reason.STORE_FULL, "object store is full")
    return Refusal(Reason.UNAVAILABLE, "object store failed")
