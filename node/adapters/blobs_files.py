"""Objects as files in one folder: for a node without Ceph.

What must hold after a power cut: an object whose `commit` returned is whole, any other is absent. The
order that makes it so:

1. write bytes, attributes and footer to `incoming/<name>.<random>`, in the same file system;
2. fsync that file: what the name will point at is on the disk;
3. link it as `<ab>/<name>`: exclusive, since link(2) never replaces; visible to readers from here on;
4. fsync the folder `<ab>`: the name is on the disk; only now does `commit` return;
5. unlink the incoming name. A crash before this leaves a second name, removed at a later start.

The 256 folders are made, and made durable, when the store is opened, so that no object ever waits for
(or forgets) the fsync of its folder's parent. link and unlink cost the same as renameat2 or O_TMPFILE
here, within the noise, and work on every POSIX file system.

A file is: the object's bytes, the packed attributes, a footer of fixed size. So one fsync carries all.

All calls that change the disk go through `SystemCalls`, so that a test can stand in between and cut
the power (`tests/contract/test_blobs_files.py`).
"""

import errno
import os
import secrets
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from node.adapters.blobs_common import Health, checked_name, checked_range, is_name, pack, unpack
from node.domain.errors import Reason, Refusal
from node.ports import BlobWriter

LEFTOVER_SECONDS = 86_400.0  # no object takes a day to arrive: an incoming file this old is a leftover
SYNC_EVERY_BYTES = 64 << 20  # so that dirty pages stay bounded and no commit has gigabytes to flush

_FOOTER = struct.Struct("<8sQII")  # magic, length of data, length of attributes, CRC-32 (see _footer)
_FOOTER_CHECKED = struct.Struct("<8sQI")
_MAGIC = b"STELEob1"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class SystemCalls:
    """The operating system's calls that write, name and remove files."""

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

    def link(self, source: str, target: str) -> None:
        """link(2): FileExistsError if the target is there."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        """unlink(2)."""
        os.unlink(path)  # noqa: PTH108 (paths are plain strings on the way of every object)

    def mkdir(self, path: str) -> None:
        """mkdir(2) with mode 0700."""
        os.mkdir(path, 0o700)  # noqa: PTH102


class FileBlobs:
    """Blobs in the folder `path`, made if missing.

    Intake is refused with STORE_FULL when a write would leave fewer than `free_bytes_min` bytes free
    in the file system.
    """

    def __init__(self, path: Path, free_bytes_min: int, calls: SystemCalls | None = None) -> None:
        self._calls = calls or SystemCalls()
        self._root = str(path.absolute())
        self._incoming = f"{self._root}/incoming"
        self._free_bytes_min = free_bytes_min
        self._health = Health(self._probe)
        self._prepare()

    def create(self, name: str) -> BlobWriter:
        """Begin an object; see the port."""
        return _FileWriter(self, checked_name(name))

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
            size, length, checksum = self._footer(descriptor)
            packed = self._read(descriptor, length, size)
        finally:
            self._calls.close(descriptor)
        if checksum != _checksum(size, packed):
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
            self._sync_folder(name)
        except OSError as error:
            raise _refusal(error) from error

    def names(self) -> Iterator[tuple[str, float]]:
        """Every committed object as (name, age in seconds); see the port."""
        now = time.time()
        for folder in _folders():
            try:
                with os.scandir(f"{self._root}/{folder}") as entries:
                    for entry in entries:
                        if is_name(entry.name) and (changed := _changed_at(entry)) is not None:
                            yield entry.name, max(0.0, now - changed)
            except OSError as error:
                raise _refusal(error) from error

    def check(self) -> None:
        """Return if a small file can be written, synced, read and removed now; see the port."""
        self._health.check()

    def close(self) -> None:
        """Nothing is held open."""

    # --- Used by the writer ----------------------------------------------------------------------

    def _room_for(self, length: int) -> None:
        """STORE_FULL if the file system does not have `length` bytes to spare."""
        room = os.statvfs(self._root)
        if room.f_bavail * room.f_frsize - length < self._free_bytes_min:
            raise Refusal(Reason.STORE_FULL, "object store is full")

    def _begin(self, label: str) -> tuple[str, int]:
        """A new incoming file as (path, descriptor)."""
        path = f"{self._incoming}/{label}.{secrets.token_hex(4)}"
        try:
            self._room_for(0)
            return path, self._calls.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise _refusal(error) from error

    def _publish(self, incoming: str, name: str) -> None:
        """Give a complete and synced file its name, durably. FileExistsError if the name is taken."""
        self._calls.link(incoming, self._path(name))
        try:
            self._sync_folder(name)
        except OSError:
            self._drop(self._path(name))  # not known to be durable: as if it had never been
            raise

    def _append(self, descriptor: int, data: bytes | bytearray | memoryview) -> int:
        """Write all of `data`; returns its length in bytes."""
        with memoryview(data) as whole, whole.cast("B") as view:
            done = 0
            while done < len(view):
                done += self._calls.write(descriptor, view[done:])
            return done

    def _drop(self, path: str) -> None:
        """Remove a file that nobody will miss; what cannot be removed is swept at a later start."""
        try:
            self._calls.unlink(path)
        except OSError:
            pass

    # --- Inside ----------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return f"{self._root}/{checked_name(name)[:2]}/{name}"

    def _prepare(self) -> None:
        """Make what is missing, durably, and sweep leftovers."""
        try:
            self._make_folder(self._root)
            for folder in ("incoming", *_folders()):
                try:
                    self._calls.mkdir(f"{self._root}/{folder}")
                except FileExistsError:
                    pass
            # Also when all were there: another process may have made them and not synced them yet.
            self._sync(self._root)
            self._sync(str(Path(self._root).parent))
            self._sweep()
        except OSError as error:
            raise _refusal(error) from error

    def _make_folder(self, path: str) -> None:
        if Path(path).is_dir():
            return
        parent = str(Path(path).parent)
        self._make_folder(parent)
        try:
            self._calls.mkdir(path)
        except FileExistsError:
            pass
        self._sync(parent)

    def _sweep(self) -> None:
        oldest = time.time() - LEFTOVER_SECONDS
        with os.scandir(self._incoming) as entries:
            for entry in entries:
                changed = _changed_at(entry)
                if changed is not None and changed < oldest:
                    self._drop(entry.path)

    def _sync(self, folder: str) -> None:
        descriptor = self._calls.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._calls.fsync(descriptor)
        finally:
            self._calls.close(descriptor)

    def _sync_folder(self, name: str) -> None:
        self._sync(f"{self._root}/{name[:2]}")

    def _open(self, name: str) -> int:
        try:
            return self._calls.open(self._path(name), os.O_RDONLY)
        except FileNotFoundError:
            raise Refusal(Reason.NOT_FOUND, "no such object") from None
        except OSError as error:
            raise _refusal(error) from error

    def _footer(self, descriptor: int) -> tuple[int, int, int]:
        """(length of data, length of attributes, checksum), checked against the file's length."""
        length = os.fstat(descriptor).st_size
        if length >= _FOOTER.size:
            footer = self._read(descriptor, _FOOTER.size, length - _FOOTER.size)
            magic, data_length, attributes_length, checksum = _FOOTER.unpack(footer)
            if magic == _MAGIC and data_length + attributes_length + _FOOTER.size == length:
                return data_length, attributes_length, checksum
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
            raise _refusal(error) from error
        return data

    def _probe(self) -> None:
        self._room_for(0)
        path, descriptor = self._begin("check")
        try:
            self._append(descriptor, _MAGIC)
            self._calls.fsync(descriptor)
            if self._read(descriptor, len(_MAGIC), 0) != _MAGIC:
                raise Refusal(Reason.UNAVAILABLE, "object store does not keep what is written")
        except OSError as error:
            raise _refusal(error) from error
        finally:
            self._calls.close(descriptor)
            self._drop(path)


class _FileWriter:
    def __init__(self, store: FileBlobs, name: str) -> None:
        self._store = store
        self._calls = store._calls
        self._name = name
        self._length = 0
        self._not_synced = 0
        self._incoming, self._descriptor = store._begin(name)
        self._open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._open:
            raise ValueError("the writer is closed")
        try:
            self._store._room_for(len(data) if not isinstance(data, memoryview) else data.nbytes)
            written = self._store._append(self._descriptor, data)
            self._length += written
            self._not_synced += written
            if self._not_synced >= SYNC_EVERY_BYTES:
                self._calls.fsync(self._descriptor)
                self._not_synced = 0
        except OSError as error:
            self.abort()  # a failed write or fsync is never tried again: the kernel may have dropped pages
            raise _refusal(error) from error
        except Refusal:
            self.abort()
            raise

    def commit(self, attributes: dict[str, bytes]) -> None:
        if not self._open:
            raise ValueError("the writer is closed")
        packed = pack(attributes)
        checksum = _checksum(self._length, packed)
        footer = _FOOTER.pack(_MAGIC, self._length, len(packed), checksum)
        try:
            self._store._append(self._descriptor, packed + footer)
            self._calls.fsync(self._descriptor)
            self._store._publish(self._incoming, self._name)
        except FileExistsError:
            raise
        except OSError as error:
            raise _refusal(error) from error
        finally:
            self.abort()  # after success too: closes, and unlinks the incoming name

    def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            self._calls.close(self._descriptor)
        except OSError:
            pass  # what matters was synced before, or is thrown away
        self._store._drop(self._incoming)


def _folders() -> list[str]:
    return [f"{number:02x}" for number in range(256)]


def _checksum(size: int, packed: bytes) -> int:
    return zlib.crc32(_FOOTER_CHECKED.pack(_MAGIC, size, len(packed)), zlib.crc32(packed))


def _changed_at(entry: os.DirEntry[str]) -> float | None:
    """When a file was last written (seconds since the epoch), None if it is gone or not a file."""
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_mtime if stat.S_ISREG(status.st_mode) else None


def _refusal(error: OSError) -> Refusal:
    """What a failed system call means to the client. The error itself stays as the cause, for the log."""
    if error.errno in _NO_ROOM:
        return Refusal(Reason.STORE_FULL, "object store is full")
    return Refusal(Reason.UNAVAILABLE, "object store failed")
