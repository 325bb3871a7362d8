"""The file store and what disks do: power cuts, kills, full file systems, failing media."""

import errno
import os
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.adapters.blobs_files import LEFTOVER_SECONDS, FileBlobs
from node.adapters.blobs_files_writing import SystemCalls
from node.domain.errors import Reason, Refusal
from tests.contract.lossy_disk import LossyDisk, PowerCut
from tests.contract.test_blobs import listed, refused, some_bytes, store
from tests.support import require, wait_until


def broken_promises(tmp_path: Path, disk: LossyDisk, calls: int | None = None) -> list[str]:
    """Store objects until the power goes (before call number `calls`, or at the end), then look at
    what is left: what is wrong with it, [] if every acknowledged object is whole and no other shows."""
    ground, survived = tmp_path / "ground", tmp_path / "survived"
    ground.mkdir()
    acknowledged: dict[str, bytes] = {}
    removed: set[str] = set()
    begun: dict[str, bytes] = {}
    disk.calls_left = calls
    try:
        blobs = FileBlobs(ground / "new" / "objects", free_bytes_min=0, calls=disk, blanks_at_once=3)
        for number in range(4):
            data = some_bytes(20_000, number)
            writer = blobs.create()
            begun[writer.name] = data
            writer.write(data)
            writer.commit({"number": bytes([number])})
            acknowledged[writer.name] = data
        gone = next(iter(acknowledged))
        del acknowledged[gone]
        blobs.remove(gone)
        removed.add(gone)
    except (PowerCut, Refusal):
        pass
    disk.after_power_cut(ground, survived)
    if not acknowledged and not (survived / "new" / "objects").exists():
        return []
    after = FileBlobs(survived / "new" / "objects", free_bytes_min=0)
    wrong = []
    for name, data in acknowledged.items():
        try:
            if after.read(name, 0, len(data)) != data or after.attributes(name)["number"] is None:
                wrong.append("acknowledged object has other bytes")
        except Refusal as refusal:
            wrong.append(f"acknowledged object: {refusal.reason.value}")
    for name in listed(after):
        if name in removed:
            wrong.append("removed object is back")
        try:
            if after.read(name, 0, after.size(name)) != begun[name]:
                wrong.append("visible object has other bytes")
            after.attributes(name)
        except Refusal as refusal:
            wrong.append(f"visible object: {refusal.reason.value}")
    return wrong


def test_a_power_cut_at_the_end_loses_nothing(tmp_path: Path) -> None:
    assert broken_promises(tmp_path, LossyDisk()) == []


def test_a_power_cut_before_any_call_breaks_no_promise(tmp_path: Path) -> None:
    disk = LossyDisk()
    disk.calls_left = 1_000_000
    (tmp_path / "count").mkdir()
    broken_promises(tmp_path / "count", disk, 1_000_000)
    calls = 1_000_000 - (disk.calls_left or 0)
    opening = 257  # the folders' mkdir: cut a few of those, and before each call after them
    for cut in [0, 1, 2, 100, *range(opening, calls + 1)]:
        (tmp_path / str(cut)).mkdir()
        assert broken_promises(tmp_path / str(cut), LossyDisk(), cut) == [], f"before call {cut}"


@pytest.mark.parametrize(
    ("dropped", "drop", "found"),
    [
        ("file", lambda folder, _path: not folder, "acknowledged object: not_found"),
        (
            "folder",
            lambda folder, path: folder and len(Path(path).name) == 2,
            "acknowledged object: not_found",
        ),
        ("root", lambda folder, path: folder and path.endswith("objects"), "acknowledged object: not_found"),
        ("parent", lambda folder, path: folder and path.endswith("new"), "acknowledged object: not_found"),
    ],
)
def test_a_dropped_fsync_is_seen(
    tmp_path: Path, dropped: str, drop: Callable[[bool, str], bool], found: str
) -> None:
    assert found in broken_promises(tmp_path, LossyDisk(drop)), f"fsync of the {dropped} is not missed"


def test_a_removal_without_fsync_is_seen(tmp_path: Path) -> None:
    class Forgetful(LossyDisk):
        """Drops the fsyncs of the folder that an object was removed from."""

        emptied = ""

        def __init__(self) -> None:
            super().__init__(lambda folder, path: folder and path == self.emptied)

        def unlink(self, path: str) -> None:
            if not Path(path).stat().st_mode & 0o200:
                self.emptied = str(Path(path).parent)
            super().unlink(path)

    assert "removed object is back" in broken_promises(tmp_path, Forgetful())


def test_the_kernel_sees_the_order(tmp_path: Path) -> None:
    """The same as strace sees it, in case the adapter goes round `SystemCalls`."""
    require("strace")
    trace = tmp_path / "trace"
    program = f"""
        from pathlib import Path
        from node.adapters.blobs_files import FileBlobs
        blobs = FileBlobs(Path({str(tmp_path / "objects")!r}), free_bytes_min=0)
        writer = blobs.create()
        writer.write(b"x" * 1000)
        writer.commit({{"a": b"b"}})
        print(writer.name, flush=True)
    """
    calls = "openat,write,writev,pwrite64,fsync,fdatasync,link,linkat,rename,renameat,renameat2,fchmod,unlink"
    done = subprocess.run(
        ["strace", "-f", "-y", "-e", f"trace={calls}", "-o", str(trace), *_python(program)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    if b"ptrace" in done.stderr.lower() and done.returncode != 0:
        require("permission to use ptrace")
    assert done.returncode == 0, done.stderr
    name = done.stdout.decode().strip()
    folder = f"objects/{name[:2]}"
    steps = []
    for line in trace.read_text().splitlines():
        call = line.split(None, 1)[1]
        of_file = f"{folder}/{name}" in call
        if call.startswith("openat") and of_file and "O_EXCL" in call:
            steps.append("name")
        elif call.startswith("fsync") and call.split(">")[0].endswith(folder):
            steps.append("sync folder")
        elif call.startswith(("write", "pwrite")) and of_file:
            steps.append("write")
        elif call.startswith("fchmod") and of_file and "0400" in call:
            steps.append("make read-only")
        elif call.startswith(("fsync", "fdatasync")) and of_file:
            steps.append("sync file")
    assert steps == ["name", "sync folder", "write", "write", "make read-only", "sync file"]


def run_until_killed(program: str, log: Path) -> None:
    """Run the program with its output in `log`; kill it when it says so of the third object."""
    with log.open("wb") as output:
        child = subprocess.Popen(_python(program), stdout=output)
    wait_until(lambda: log.read_bytes().count(b"done") >= 3, 30, "three objects")
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_kill_9_leaves_nothing_half_visible(tmp_path: Path) -> None:
    path = tmp_path / "objects"
    program = f"""
        import secrets
        from pathlib import Path
        from node.adapters.blobs_files import FileBlobs
        blobs = FileBlobs(Path({str(path)!r}), free_bytes_min=0)
        while True:
            writer = blobs.create()
            name = writer.name
            print("begin", name, flush=True)
            for _ in range(20):
                writer.write(name.encode() * 1000)
            writer.commit({{"name": name.encode()}})
            print("done", name, flush=True)
    """
    for _ in range(5):
        log = tmp_path / f"log{secrets.token_hex(4)}"
        run_until_killed(program, log)
        blobs = FileBlobs(path, free_bytes_min=0)
        lines = [line.split() for line in log.read_text().splitlines()]
        acknowledged = {line[1] for line in lines if line[0] == "done" and len(line) == 2}
        visible = listed(blobs)
        assert acknowledged <= visible.keys()
        for name in visible:
            assert blobs.read(name, 0, blobs.size(name)) == name.encode() * 20_000
            assert blobs.attributes(name) == {"name": name.encode()}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    require("mount", "umount", needs_root=True)
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        require("permission to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(blobs: FileBlobs) -> list[str]:
    """Store objects until the store is full; returns their names."""
    names = []
    with refused(Reason.STORE_FULL):
        for number in range(100):
            names.append(store(blobs, some_bytes(1_000_000, number)))
    return names


@pytest.mark.parametrize("free_bytes_min", [0, 3_000_000], ids=["to the last byte", "with a reserve"])
def test_a_full_disk_is_store_full_and_recovers(small_disk: Path, free_bytes_min: int) -> None:
    blobs = FileBlobs(small_disk / "objects", free_bytes_min)
    names = fill(blobs)
    assert len(names) >= 3
    assert set(listed(blobs)) == set(names)
    room = os.statvfs(small_disk)
    assert room.f_bavail * room.f_frsize >= free_bytes_min
    for number, name in enumerate(names):
        assert blobs.read(name, 0, 1_000_000) == some_bytes(1_000_000, number)
    blobs.remove(names[0])
    blobs.remove(names[1])
    blobs.check()
    store(blobs, some_bytes(1_000_000))


def test_a_disk_that_fills_in_mid_object(small_disk: Path) -> None:
    """ENOSPC from write(2) itself: the room is gone between the question and the write."""
    blobs = FileBlobs(small_disk / "objects", free_bytes_min=0)

    class FillsUp(SystemCalls):
        def write(self, descriptor: int, data: memoryview) -> int:
            other = small_disk / "other"
            if not other.exists():
                room = os.statvfs(small_disk)
                other.write_bytes(bytes(room.f_bavail * room.f_frsize - 100_000))
            return super().write(descriptor, data)

    filling = FileBlobs(small_disk / "objects", free_bytes_min=0, calls=FillsUp())
    writer = filling.create()
    with refused(Reason.STORE_FULL):
        writer.write(some_bytes(1_000_000))
    writer.abort()
    (small_disk / "other").unlink()
    assert listed(blobs) == {}
    store(blobs, some_bytes(1_000_000))


def test_check_is_store_full_below_the_reserve(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "objects", free_bytes_min=1 << 62)
    with refused(Reason.STORE_FULL):
        blobs.check()
    with refused(Reason.STORE_FULL):
        blobs.create()


def written(root: Path) -> int:
    """Bytes in all files of a store."""
    return sum(file.stat().st_size for file in root.glob("*/*"))


class Failing(SystemCalls):
    """Answers `code` to the call named `call` while `on`."""

    def __init__(self, call: str, code: int) -> None:
        self._call, self._code = call, code
        self.on = False

    def _fail(self, call: str) -> None:
        if self.on and call == self._call:
            raise OSError(self._code, os.strerror(self._code))

    def write(self, descriptor: int, data: memoryview) -> int:
        self._fail("write")
        return super().write(descriptor, data)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        self._fail("pread")
        return super().pread(descriptor, length, offset)

    def fsync(self, descriptor: int) -> None:
        folder = Path(f"/proc/self/fd/{descriptor}").resolve().is_dir()
        self._fail("fsync folder" if folder else "fsync file")
        super().fsync(descriptor)


@pytest.mark.parametrize("call", ["write", "fsync file", "fsync folder"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EIO, Reason.UNAVAILABLE),
        (errno.EROFS, Reason.UNAVAILABLE),
        (errno.ENOSPC, Reason.STORE_FULL),
        (errno.EDQUOT, Reason.STORE_FULL),
    ],
)
def test_a_failed_write_is_refused_and_leaves_nothing(
    tmp_path: Path, call: str, code: int, reason: Reason
) -> None:
    calls = Failing(call, code)
    blobs = FileBlobs(tmp_path / "objects", free_bytes_min=0, calls=calls)
    calls.on = True
    with refused(reason):
        store(blobs, b"data")
    calls.on = False
    assert listed(blobs) == {}
    assert written(tmp_path / "objects") == 0


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.EIO, Reason.CORRUPT), (errno.ENOMEM, Reason.UNAVAILABLE)]
)
def test_what_the_disk_cannot_read_is_corrupt(tmp_path: Path, code: int, reason: Reason) -> None:
    calls = Failing("pread", code)
    blobs = FileBlobs(tmp_path / "objects", free_bytes_min=0, calls=calls)
    name = store(blobs, b"data")
    calls.on = True
    with refused(reason):
        blobs.read(name, 0, 4)


def test_check_tells_of_a_broken_disk_within_a_second_of_its_answer(tmp_path: Path) -> None:
    calls = Failing("fsync file", errno.EIO)
    blobs = FileBlobs(tmp_path / "objects", free_bytes_min=0, calls=calls)
    blobs.check()
    calls.on = True

    def fails() -> bool:
        try:
            blobs.check()
        except Refusal as refusal:
            assert refusal.reason is Reason.UNAVAILABLE
            return True
        return False

    wait_until(fails, 3, "the check tells")
    calls.on = False
    wait_until(lambda: not fails(), 3, "the check is well again")


@pytest.mark.parametrize("cut", [1, 24, 25, 500])
def test_a_truncated_file_is_corrupt(tmp_path: Path, cut: int) -> None:
    blobs = FileBlobs(tmp_path / "objects", free_bytes_min=0)
    name = store(blobs, bytes(1000), {"a": b"b"})
    file = tmp_path / "objects" / name[:2] / name
    os.truncate(file, file.stat().st_size - cut)
    for ask in (lambda: blobs.read(name, 0, 1), lambda: blobs.size(name), lambda: blobs.attributes(name)):
        with refused(Reason.CORRUPT):
            ask()


def test_changed_attributes_are_corrupt(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "objects", free_bytes_min=0)
    name = store(blobs, bytes(1000), {"sha256": b"0" * 32})
    file = tmp_path / "objects" / name[:2] / name
    data = bytearray(file.read_bytes())
    data[1000 + 20] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    file.chmod(0o400)
    with refused(Reason.CORRUPT):
        blobs.attributes(name)


def test_old_leftovers_are_swept_unless_somebody_works_on_them(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    blobs = FileBlobs(root, free_bytes_min=0)
    kept, writer = store(blobs, b"an object"), blobs.create()
    writer.write(b"half")
    half = root / writer.name[:2] / writer.name
    old, young = (root / "00" / secrets.token_hex(16) for _ in range(2))
    for file in (old, young):
        file.write_bytes(b"half")
    past = time.time() - LEFTOVER_SECONDS - 60
    for file in (old, half, root / kept[:2] / kept):
        os.utime(file, (past, past))
    assert set(listed(FileBlobs(root, free_bytes_min=0))) == {kept}
    assert not old.exists()
    assert young.exists()
    writer.commit({})
    assert blobs.read(writer.name, 0, 4) == b"half"


def test_blanks_go_with_their_store(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    blobs = FileBlobs(root, free_bytes_min=0)
    name = store(blobs, b"an object")
    blobs.close()
    assert [file.name for file in root.glob("??/*")] == [name]


def test_a_store_that_was_full_makes_blanks_again(tmp_path: Path) -> None:
    class NoRoom(SystemCalls):
        full = False

        def open(self, path: str, flags: int) -> int:
            if self.full and flags & os.O_EXCL:
                raise OSError(errno.ENOSPC, "no inodes")
            return super().open(path, flags)

    calls = NoRoom()
    blobs = FileBlobs(tmp_path / "objects", free_bytes_min=0, calls=calls, blanks_at_once=1)
    calls.full = True
    with refused(Reason.STORE_FULL):
        blobs.create()
    calls.full = False
    blobs.read(store(blobs, b"data"), 0, 4)


def test_nobody_else_may_read(tmp_path: Path) -> None:
    name = store(FileBlobs(tmp_path / "new" / "objects", free_bytes_min=0), b"data")
    root = tmp_path / "new" / "objects"
    for folder in (root.parent, root, root / name[:2]):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (root / name[:2] / name).stat().st_mode & 0o777 == 0o400


def _python(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]
