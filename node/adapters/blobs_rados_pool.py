"""A RADOS pool as the object store needs it: few operations, each bounded in time, errors as Refusals.

librados waits for ever unless told otherwise, and pauses writers while the cluster is full. Here every
operation has a time limit (then UNAVAILABLE: the operation may still have taken effect), and writes
carry FULL_TRY (then STORE_FULL). The bytes being written at one time are bounded by a gate.
"""

import errno
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rados

from node.adapters.blobs_rados_listing import list_keys
from node.domain.errors import Reason, Refusal

# Not in python3-rados (LIBRADOS_OPERATION_FULL_TRY in rados/librados.h): fail, do not pause, when full.
# Removal carries it too, or librados would pause it as well, and a full store could never be emptied.
_FULL_TRY = 64
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class RadosPool:
    """One pool. Connects at first use, so that a node can start (and fork) before its cluster is there."""

    def __init__(
        self,
        conf: Path,
        user: str,
        pool: str,
        *,
        operation_seconds: float,
        keyring: Path | None,
        bytes_in_flight_max: int,
    ) -> None:
        self._conf, self._user, self._pool = conf, user, pool
        self._operation_seconds = operation_seconds
        seconds = str(max(1, math.ceil(operation_seconds)))  # librados takes whole seconds
        limits = ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout")
        self._options = dict.fromkeys(limits, seconds)
        if keyring is not None:
            self._options["keyring"] = str(keyring)
        self._gate = _Gate(bytes_in_flight_max, min(operation_seconds, 10.0))
        self._lock = threading.Lock()
        self._cluster: Any = None
        self._objects: Any = None
        self._failed_at = -1.0

    def create(self, key: str, data: bytes, attributes: Mapping[str, bytes]) -> None:
        """Bytes and attributes in one atomic operation. FileExistsError if the key is taken."""
        with self._gate.room_for(len(data)), rados.WriteOpCtx() as operation:
            operation.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
            operation.write_full(data)
            for attribute, value in attributes.items():
                operation.set_xattr(attribute, value)
            self._operate(operation, key)

    def remove(self, key: str) -> None:
        """Remove; what is not there is no error."""
        with rados.WriteOpCtx() as operation:
            operation.remove()
            try:
                self._operate(operation, key)
            except Refusal as refusal:
                if refusal.reason is not Reason.NOT_FOUND:
                    raise

    def read(self, key: str, offset: int, length: int) -> bytes:
        """At most `length` (not 0) bytes. Refusal NOT_FOUND, CORRUPT (Ceph could not get them right)."""
        objects = self._connected()
        try:
            data: bytes = objects.read(key, length, offset)
        except rados.Error as error:
            raise _refusal(error, Reason.CORRUPT) from error
        return data

    def attribute(self, key: str, attribute: str) -> bytes:
        """Refusal NOT_FOUND for the object, CORRUPT if it is there without the attribute."""
        objects = self._connected()
        try:
            value: bytes = objects.get_xattr(key, attribute)
        except rados.NoData as error:
            raise Refusal(Reason.CORRUPT, "object has lost its attributes") from error
        except rados.Error as error:
            raise _refusal(error, Reason.CORRUPT) from error
        return value

    def age_seconds(self, key: str) -> float | None:
        """Seconds since the key was written; None if it is not there."""
        objects = self._connected()
        try:
            _, written = objects.stat(key)
        except rados.ObjectNotFound:
            return None
        except rados.Error as error:
            raise _refusal(error, Reason.CORRUPT) from error
        return max(0.0, time.time() - time.mktime(written))

    def keys(self) -> Iterator[str]:
        """Every key, streamed, in no order. UNAVAILABLE when the listing cannot go on to its end."""
        try:
            yield from list_keys(self._conf, self._user, self._pool, self._options)
        except OSError as error:
            raise Refusal(Reason.UNAVAILABLE, "object store cannot be listed") from error

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            objects, cluster, self._objects, self._cluster = self._objects, self._cluster, None, None
            if objects is not None:
                objects.close()
                cluster.shutdown()

    def _operate(self, operation: Any, key: str) -> None:
        objects = self._connected()
        try:
            # The binding documents mtime 0 as "now", but hands librados the year 1970.
            objects.operate_write_op(operation, key, mtime=int(time.time()), flags=_FULL_TRY)
        except rados.ObjectExists:
            raise FileExistsError(key) from None
        except rados.Error as error:
            raise _refusal(error, Reason.UNAVAILABLE) from error

    def _connected(self) -> Any:
        """The pool's handle. While the cluster is away, one caller tries; what it finds out holds for
        all who were waiting, so that they do not spend the time limit one after the other."""
        objects = self._objects
        if objects is not None:
            return objects
        asked_at = time.monotonic()
        if not self._lock.acquire(timeout=self._operation_seconds):
            raise Refusal(Reason.UNAVAILABLE, "object store does not answer")
        try:
            if self._objects is None:
                if self._failed_at > asked_at:
                    raise Refusal(Reason.UNAVAILABLE, "object store does not answer")
                self._connect()
            return self._objects
        finally:
            self._lock.release()

    def _connect(self) -> None:
        cluster: Any = None
        try:
            cluster = rados.Rados(conffile=str(self._conf), name=self._user, conf=self._options)
            cluster.connect()
            self._objects = cluster.open_ioctx(self._pool)
            self._cluster = cluster
        except rados.Error as error:
            self._failed_at = time.monotonic()
            if cluster is not None:
                cluster.shutdown()
            raise Refusal(Reason.UNAVAILABLE, "object store cannot be reached") from error


class _Gate:
    """At most so many bytes at a time pass; who waits too long is told UNAVAILABLE."""

    def __init__(self, bytes_max: int, wait_seconds: float) -> None:
        self._bytes_max = bytes_max
        self._wait_seconds = wait_seconds
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def room_for(self, length: int) -> Iterator[None]:
        """Hold `length` bytes of the room; something larger than all of it passes alone."""
        length = min(length, self._bytes_max)
        with self._changed:
            free = self._changed.wait_for(lambda: self._used + length <= self._bytes_max, self._wait_seconds)
            if not free:
                raise Refusal(Reason.UNAVAILABLE, "object store is too slow")
            self._used += length
        try:
            yield
        finally:
            with self._changed:
                self._used -= length
                self._changed.notify_all()


def _refusal(error: Any, on_io_error: Reason) -> Refusal:
    """What librados's error means. EIO while reading: Ceph has no good copy left to make the bytes of."""
    code = abs(getattr(error, "errno", 0) or 0)
    if code == errno.ENOENT:
        return Refusal(Reason.NOT_FOUND, "no such object")
    if code in _NO_ROOM:
        return Refusal(Reason.STORE_FULL, "object store is full")
    if code == errno.EIO:
        return Refusal(on_io_error, "object store failed")
    return Refusal(Reason.UNAVAILABLE, "object store does not answer")
