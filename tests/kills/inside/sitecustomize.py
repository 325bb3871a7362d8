"""Runs first in every Python process of an archive under test (its folder is on PYTHONPATH).

* A book is kept of what was synced below KILLS_OBJECTS, for `tests.kills.lossy`: "F inode bytes mode" per
  synced file, "D folder name/inode …" per synced folder, with the names that it had when the call began.
* KILLS_MUTATION breaks one promise of the archive, so that the judge can be seen to notice.

A mutation replaces what it breaks by name and fails loudly if that is no longer there.
"""

import os
import stat
import sys
import threading
from typing import Any

_OBJECTS = os.environ.get("KILLS_OBJECTS", "")
_BOOK = os.environ.get("KILLS_BOOK", "")
_MUTATION = os.environ.get("KILLS_MUTATION", "")


def _keep_book() -> None:
    book = os.open(_BOOK, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def kept(sync: Any) -> Any:
        def call(descriptor: Any) -> None:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            path = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - on the way of every object
            if not path.startswith(_OBJECTS):
                sync(descriptor)
                return
            status = os.fstat(number)
            if stat.S_ISDIR(status.st_mode):
                names = " ".join(f"{entry.name}/{entry.inode()}" for entry in os.scandir(path))
                line = f"D {path} {names}\n"
            else:
                line = f"F {status.st_ino} {status.st_size} {stat.S_IMODE(status.st_mode)}\n"
            sync(descriptor)
            os.write(book, line.encode())  # appended whole: one write, many processes

        return call

    os.fsync, os.fdatasync = kept(os.fsync), kept(os.fdatasync)


def _acknowledge_before_the_commit() -> None:
    from node.adapters.catalog_postgres.instances import PostgresInstances
    from node.domain.model import Admission, StoredInstance

    admit = PostgresInstances.admit

    def early(self: Any, record: Any, event: Any) -> Any:
        threading.Timer(0.1, admit, (self, record, event)).start()
        return Admission.STORED, StoredInstance(
            sop_class_uid=record.sop_class_uid,
            sop_instance_uid=record.sop_instance_uid,
            transfer_syntax_uid=record.transfer_syntax_uid,
            study_uid=record.study_uid,
            series_uid=record.series_uid,
            stored=record.stored,
            received_at=None,  # type: ignore[arg-type]
            number_of_frames=1,
        )

    PostgresInstances.admit = early  # type: ignore[method-assign]


def _drop_the_fsync() -> None:
    from node.adapters.blobs_files_writing import SystemCalls

    def dropped(_self: Any, _descriptor: int) -> None:
        return

    SystemCalls.fsync  # noqa: B018 - it has to be there
    SystemCalls.fsync = dropped  # type: ignore[assignment, method-assign]


def _skip_the_digest_check() -> None:
    from node.services.objects import Objects

    Objects._checked  # noqa: B018 - it has to be there

    def unchecked(self: Any, stored: Any, offset: int, length: int, _digest: bytes) -> bytes:
        data: bytes = self._blobs.read(stored.name, stored.prefix_length + offset, length)
        return data

    Objects._checked = unchecked  # type: ignore[assignment, method-assign]


_MUTATIONS = {
    "acknowledge before the commit": _acknowledge_before_the_commit,
    "drop the fsync": _drop_the_fsync,
    "skip the digest check": _skip_the_digest_check,
}

if _BOOK:
    _keep_book()
if _MUTATION:
    try:
        _MUTATIONS[_MUTATION]()
    except Exception as error:  # noqa: BLE001 - site would only print it, and go on unmutated
        print(f"mutation {_MUTATION!r} does not apply any more: {error!r}", file=sys.stderr, flush=True)
        os._exit(70)
