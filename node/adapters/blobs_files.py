"""Objects as files in one folder: for a node without Ceph.

What must hold after a power cut: an object whose `commit` returned is whole, any other is absent. The
order that makes it so:

1. a blank `<ab>/<name>` is made (O_EXCL: a name is given once) and its folder synced, ahead of its use:
   from here on the name is on the disk, and means nothing;
2. bytes, attributes and footer are written to it, and its mode is changed: an object is read-only;
3. fsync of that file, which carries both; only now does `commit` return.

What is writable is no object, whatever it holds: a blank, one that is being filled, or what a crash left
of either. The process that made it holds a lock on it (flock(2)) as long as it lives; without one, and a day
old, it is removed. A read-only file that is cut off is a damaged object,
and never removed by itself.

The 256 folders are made, and made durable, when the store is opened. A file is: the object's bytes, the
packed attributes, a footer of fixed size.

All calls that change the disk go through `SystemCalls`, so that a test can stand in between and cut
the power (`tests/contract/test_blobs_files.py`).
"""

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from node.adapters.blobs_common import Health, checked_name, checked_range, is_name, unpack
from node.adapters.blobs_files_writing import (
    BLANKS_AT_ONCE,
    FOOTER,
    MAGIC,
    Blanks,
    FileWriter,
    SystemCalls,
    append,
    checksum,
    discard,
    refusal,
    sync_folder,
)
from node.domain.errors import Reason, Refusal
from node.ports import BlobWriter

LEFTOVER_SECONDS = 86_400.0  # no object takes a day to arrive: what is not one by then is a leftover


class FileBlobs:
    """Blobs in the folder `path`, made if missing.

    Intake is refused with STORE_FULL when a write would leave fewer than `free_bytes_min` bytes free
    in the file system. `blanks_at_once` files are made ahead together.
    """

    def __init__(
        self,
        path: Path,
        free_bytes_min: int,
        calls: SystemCalls | None = None,
        blanks_at_once: int = BLANKS_AT_ONCE,
    ) -> None:
        self._calls = calls or SystemCalls()
        self._root = str(path.absolute())
        self._free_bytes_min = free_bytes_min
        self._health = Health(self._probe)
        self._prepare()
        self._blanks = Blanks(self._root, self._calls, blanks_at_once)

    def create(self) -> BlobWriter:
        """Begin an object; see the port."""
        try:
            self._room_for(0)
            return FileWriter(self._blanks.take(), self._calls, self._room_for)
        except OSError as error:
            raise refusal(error) from error

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; see the port."""
        checked_range(offset, length)
        descriptor = self._open(name)
        try:
            size, _, _ = self._footer(descriptor)
            if offset + length > size:
                raise Refusal(Reason.CORRUPT, "object is shorter than asked for")
            return self._read(descriptor, length, offset)
        finally:
            self._calls.close(descriptor)

    def attributes(self, name: str) -> dict[str, bytes]:
        """The attributes given to `commit`; see the port. CORRUPT if their checksum is wrong."""
        descriptor = self._open(name)
        try:
            size, length, crc = self._footer(descriptor)
            packed = self._read(descriptor, length, size)
        finally:
            self._calls.close(descriptor)
        if crc != checksum(size, packed):
            raise Refusal(Reason.CORRUPT, "object's attributes fail their checksum")
        try:
            return unpack(packed)
        except ValueError:
            raise Refusal(Reason.CORRUPT, "object's attributes are not readable") from None

    def size(self, name: str) -> int:
        """Length in bytes; see the port."""
        descriptor = self._open(name)
        try:
            return self._footer(descriptor)[0]
        finally:
            self._calls.close(descriptor)

    def remove(self, name: str) -> None:
        """Remove for good; see the port. The folder is synced even if nothing was there: the call
        before this one may have removed it and then failed."""
        try:
            try:
                self._calls.unlink(self._path(name))
            except FileNotFoundError:
                pass
            sync_folder(self._calls, f"{self._root}/{name[:2]}")
        except OSError as error:
            raise refusal(error) from error

    def names(self) -> Iterator[tuple[str, float]]:
        """Every committed object as (name, age in seconds); see the port. Removes leftovers."""
        now = time.time()
        for folder in _folders():
            try:
                with os.scandir(f"{self._root}/{folder}") as entries:
                    for entry in entries:
                        if is_name(entry.name) and (status := _status(entry)) is not None:
                            age_seconds = max(0.0, now - status.st_mtime)
                            if _is_object(status):
                                yield entry.name, age_seconds
                            elif age_seconds > LEFTOVER_SECONDS:
                                self._sweep(entry.path)
            except OSError as error:
                raise refusal(error) from error

    def check(self) -> None:
        """Return if a small file can be written, synced, read and removed now; see the port."""
        self._health.check()

    def close(self) -> None:
        """Remove the blanks that were not used."""
        self._blanks.close()

    # --- Inside ----------------------------------------------------------------------------------

    def _room_for(self, length: int) -> None:
        """STORE_FULL if the file system does not have `length` bytes to spare."""
        room = os.statvfs(self._root)
        if room.f_bavail * room.f_frsize - length < self._free_bytes_min:
            raise Refusal(Reason.STORE_FULL, "object store is full")

    def _path(self, name: str) -> str:
        return f"{self._root}/{checked_name(name)[:2]}/{name}"

    def _prepare(self) -> None:
        """Make what is missing, durably."""
        try:
            self._make_folder(self._root)
            for folder in _folders():
                try:
                    self._calls.mkdir(f"{self._root}/{folder}")
                except FileExistsError:
                    pass
            for leftover in Path(self._root).glob("check.*"):  # of probes that were killed
                leftover.unlink(missing_ok=True)
            # Also when all were there: another process may have made them and not synced them yet.
            sync_folder(self._calls, self._root)
            sync_folder(self._calls, str(Path(self._root).parent))
        except OSError as error:
            raise refusal(error) from error

    def _make_folder(self, path: str) -> None:
        if Path(path).is_dir():
            return
        parent = str(Path(path).parent)
        self._make_folder(parent)
        try:
            self._calls.mkdir(path)
        except FileExistsError:
            pass
        sync_folder(self._calls, parent)

    def _sweep(self, path: str) -> None:
        """Remove a leftover, unless somebody works on it: clocks jump, locks do not."""
        try:
            descriptor = self._calls.open(path, os.O_RDWR)
        except OSError:
            return  # it is gone, or an object by now
        try:
            if self._calls.lock(descriptor) and not _is_object(os.fstat(descriptor)):
                self._calls.unlink(path)
        finally:
            self._calls.close(descriptor)

    def _open(self, name: str) -> int:
        try:
            return self._calls.open(self._path(name), os.O_RDONLY)
        except FileNotFoundError:
            raise Refusal(Reason.NOT_FOUND, "no such object") from None
        except OSError as error:
            raise refusal(error) from error

    def _footer(self, descriptor: int) -> tuple[int, int, int]:
        """(length of data, length of attributes, CRC-32), checked against the file's length."""
        status = os.fstat(descriptor)
        if not _is_object(status):
            raise Refusal(Reason.NOT_FOUND, "no such object")
        length = status.st_size
        if length >= FOOTER.size:
            footer = self._read(descriptor, FOOTER.size, length - FOOTER.size)
            magic, data_length, attributes_length, crc = FOOTER.unpack(footer)
            if magic == MAGIC and data_length + attributes_length + FOOTER.size == length:
                return data_length, attributes_length, crc
        raise Refusal(Reason.CORRUPT, "object is cut off")

    def _read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Exactly `length` bytes. EIO is CORRUPT, not UNAVAILABLE: the medium has lost these bytes and
        will not give them later, so that the reader must look for another copy now."""
        try:
            data = self._calls.pread(descriptor, length, offset)
            while len(data) < length:  # pread(2) stops at 2 GiB
                more = self._calls.pread(descriptor, length - len(data), offset + len(data))
                if not more:
                    raise Refusal(Reason.CORRUPT, "object is cut off")
                data += more
        except OSError as error:
            if error.errno == errno.EIO:
                raise Refusal(Reason.CORRUPT, "object cannot be read from its disk") from error
            raise refusal(error) from error
        return data

    def _probe(self) -> None:
        self._room_for(0)
        path = f"{self._root}/check.{secrets.token_hex(8)}"
        try:
            descriptor = self._calls.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise refusal(error) from error
        try:
            append(self._calls, descriptor, MAGIC)
            self._calls.fsync(descriptor)
            if self._read(descriptor, len(MAGIC), 0) != MAGIC:
                raise Refusal(Reason.UNAVAILABLE, "object store does not keep what is written")
        except OSError as error:
            raise refusal(error) from error
        finally:
            discard(self._calls, path, descriptor)


def _folders() -> list[str]:
    return [f"{number:02x}" for number in range(256)]


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """stat(2) of a file, None if it is gone or none."""
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _is_object(status: os.stat_result) -> bool:
    return not status.st_mode & stat.S_IWUSR
