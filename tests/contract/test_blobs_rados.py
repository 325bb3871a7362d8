"""The rados store on a real Ceph that loses OSDs, fills up and rots."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.domain.errors import Reason, Refusal
from tests.ceph import OSDS, CephCluster, require_rados
from tests.contract.test_blobs import listed, new_name, refused, some_bytes, store
from tests.support import free_port, wait_until

require_rados()

from node.adapters.blobs_rados import RadosBlobs  # noqa: E402 (needs python3-rados)
from node.adapters.blobs_rados_pool import RadosPool, _Gate  # noqa: E402

pytestmark = [pytest.mark.ceph, pytest.mark.timeout(600)]

PART_BYTES = 1 << 20
LARGE = 3 * PART_BYTES + 5


def connect(cluster: CephCluster, operation_seconds: float = 60) -> RadosBlobs:
    return RadosBlobs(
        cluster.conf,
        cluster.user,
        cluster.pool,
        operation_seconds=operation_seconds,
        keyring=cluster.keyring,
        part_bytes=PART_BYTES,
    )


@pytest.fixture
def blobs(ceph_cluster: CephCluster) -> Iterator[RadosBlobs]:
    opened = connect(ceph_cluster)
    yield opened
    opened.close()


@pytest.fixture
def impatient(ceph_cluster: CephCluster) -> Iterator[RadosBlobs]:
    """With a time limit that a test can wait for; connected, and not checked yet."""
    opened = connect(ceph_cluster, operation_seconds=3)
    store(opened, b"connected")
    yield opened
    opened.close()


def keys(blobs: RadosBlobs) -> set[str]:
    return set(blobs._pool.keys())


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


@contextmanager
def frozen(cluster: CephCluster, *osds: int) -> Iterator[None]:
    for osd in osds:
        cluster.stop_osd(osd, signal.SIGSTOP)
    try:
        yield
    finally:
        for osd in osds:
            cluster.start_osd(osd)
        cluster.wait_clean()


# --- OSDs come and go ----------------------------------------------------------------------------


def test_frozen_osds_are_a_time_out_not_an_endless_wait(
    ceph_cluster: CephCluster, blobs: RadosBlobs, impatient: RadosBlobs
) -> None:
    name, large = store(blobs, b"before"), store(blobs, some_bytes(LARGE))
    asked: list[Callable[[], object]] = [
        lambda: store(impatient, b"during"),
        lambda: store(impatient, some_bytes(LARGE)),
        lambda: impatient.read(name, 0, 6),
        lambda: impatient.read(large, 0, LARGE),
        lambda: impatient.size(name),
        lambda: impatient.attributes(name),
        lambda: impatient.remove(new_name()),
        lambda: list(impatient.names()),
        impatient.check,
    ]
    answers: list[Reason] = []
    with frozen(ceph_cluster, *OSDS):

        def ask(question: Callable[[], object]) -> None:
            with refused(Reason.UNAVAILABLE), within(15):
                question()
            answers.append(Reason.UNAVAILABLE)

        threads = [threading.Thread(target=ask, args=(question,)) for question in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == len(asked)
    wait_until(lambda: is_well(impatient), 30, "the store is well again")
    assert blobs.read(name, 0, 6) == b"before"
    assert blobs.read(large, 0, LARGE) == some_bytes(LARGE)


def is_well(blobs: RadosBlobs) -> bool:
    try:
        blobs.check()
    except Refusal as refusal:
        assert refusal.reason is Reason.UNAVAILABLE
        return False
    return True


def test_many_checks_of_a_frozen_store_do_not_queue_up(
    ceph_cluster: CephCluster, impatient: RadosBlobs
) -> None:
    answers: list[float] = []

    def ask() -> None:
        begun = time.monotonic()
        with refused(Reason.UNAVAILABLE):
            impatient.check()
        answers.append(time.monotonic() - begun)

    with frozen(ceph_cluster, *OSDS):
        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 20
    assert max(answers) < 10


def test_one_osd_dies_and_work_goes_on(ceph_cluster: CephCluster, blobs: RadosBlobs) -> None:
    name, large = store(blobs, b"before"), store(blobs, some_bytes(LARGE))
    ceph_cluster.stop_osd(1)
    try:
        with within(45):
            assert blobs.read(name, 0, 6) == b"before"
            assert blobs.read(large, 0, LARGE) == some_bytes(LARGE)
            during = store(blobs, some_bytes(LARGE, 2))
            blobs.check()
    finally:
        ceph_cluster.start_osd(1)
        ceph_cluster.wait_clean()
    assert blobs.read(during, 0, LARGE) == some_bytes(LARGE, 2)


def test_a_late_write_after_a_time_out_is_whole_or_absent(
    ceph_cluster: CephCluster, impatient: RadosBlobs
) -> None:
    small, large = new_name(), new_name()
    with frozen(ceph_cluster, *OSDS):
        for name, length in ((small, 1000), (large, LARGE)):
            writer = impatient._create(name)
            with refused(Reason.UNAVAILABLE):
                writer.write(some_bytes(length))
                writer.commit({"a": b"b"})
            writer.abort()
    wait_until(lambda: is_well(impatient), 30, "the store is well again")
    with refused(Reason.NOT_FOUND):  # its head was never sent
        impatient.size(large)
    try:
        assert impatient.read(small, 0, 1000) == some_bytes(1000)
        assert impatient.attributes(small) == {"a": b"b"}
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_FOUND
    for name in (small, large):
        impatient.remove(name)
    assert not {key for key in keys(impatient) if key.startswith((small, large))}


# --- Full ----------------------------------------------------------------------------------------


def test_a_full_cluster_is_store_full_and_recovers(ceph_cluster: CephCluster, blobs: RadosBlobs) -> None:
    names = [store(blobs, some_bytes(1000)), store(blobs, some_bytes(LARGE))]
    begun = blobs._create(new_name())
    begun.write(some_bytes(2 * PART_BYTES))
    before = keys(blobs)
    ceph_cluster.set_full()

    def is_full() -> bool:
        """The monitors say so, and then by and by each OSD knows."""
        try:
            before.add(store(blobs, some_bytes(10)))
        except Refusal as refusal:
            return refusal.reason is Reason.STORE_FULL
        return False

    try:
        wait_until(is_full, 20, "the OSDs have heard that the pool is full")
        with within(20):
            for length in (10, LARGE):
                with refused(Reason.STORE_FULL):
                    store(blobs, some_bytes(length))
            with refused(Reason.STORE_FULL):
                begun.write(some_bytes(PART_BYTES))
        assert keys(blobs) < before, "parts that did not become an object are gone"

        def check_says_full() -> bool:
            with pytest.raises(Refusal) as refusal:
                blobs.check()
            return refusal.value.reason is Reason.STORE_FULL

        wait_until(check_says_full, 5, "the check says full")
        assert blobs.read(names[1], 0, LARGE) == some_bytes(LARGE)
        for name in names:
            blobs.remove(name)
            with refused(Reason.NOT_FOUND):
                blobs.size(name)
    finally:
        ceph_cluster.clear_full()
    wait_until(lambda: can_store(blobs), 30, "the store takes objects again")
    blobs.check()


def can_store(blobs: RadosBlobs) -> bool:
    try:
        store(blobs, some_bytes(LARGE))
    except Refusal as refusal:
        assert refusal.reason is Reason.STORE_FULL
        return False
    return True


def test_a_quota_is_store_full(ceph_cluster: CephCluster, blobs: RadosBlobs) -> None:
    store(blobs, b"one")
    ceph_cluster.command("osd pool set-quota", pool=ceph_cluster.pool, field="max_objects", val="1")
    try:
        wait_until(lambda: not can_store(blobs), 60, "the quota is reached")
    finally:
        ceph_cluster.command("osd pool set-quota", pool=ceph_cluster.pool, field="max_objects", val="0")
    wait_until(lambda: can_store(blobs), 60, "the store takes objects again")


# --- Rot -----------------------------------------------------------------------------------------


def test_bits_that_flip_on_one_disk_are_made_good(ceph_cluster: CephCluster, blobs: RadosBlobs) -> None:
    data = some_bytes(500_000, seed=77)
    name = store(blobs, data)
    osd = ceph_cluster.osd_of(name, shard=0)
    assert ceph_cluster.flip_bits_on_disk(osd, data[:4096]) > 0
    assert blobs.read(name, 0, len(data)) == data
    assert blobs.read(name, 100, 200) == data[100:300]


def test_bits_that_flip_on_too_many_disks_are_corrupt_never_wrong(
    ceph_cluster: CephCluster, blobs: RadosBlobs
) -> None:
    data = some_bytes(500_000, seed=78)
    name = store(blobs, data)
    for shard in (0, 1):
        chunk = data[4096 * shard : 4096 * (shard + 1)]
        assert ceph_cluster.flip_bits_on_disk(ceph_cluster.osd_of(name, shard), chunk) > 0
    with refused(Reason.CORRUPT):
        blobs.read(name, 0, len(data))
    with refused(Reason.CORRUPT):
        blobs.read(name, 0, 8192)
    blobs.remove(name)


def test_a_shard_with_a_fitting_checksum_is_made_good(ceph_cluster: CephCluster, blobs: RadosBlobs) -> None:
    """Whole shards only: ranges of such a shard Ceph cannot judge, which is why readers have a digest."""
    data = some_bytes(500_000, seed=79)
    name = store(blobs, data)
    ceph_cluster.corrupt_shard(name, shard=1)
    assert blobs.read(name, 0, len(data)) == data


# --- Parts ---------------------------------------------------------------------------------------


def test_a_large_object_is_parts_and_a_head_and_removal_leaves_none(blobs: RadosBlobs) -> None:
    before = keys(blobs)
    name = store(blobs, some_bytes(LARGE))
    assert keys(blobs) - before == {name, *(f"{name}.{part}" for part in range(4))}
    blobs.remove(name)
    assert keys(blobs) == before


@pytest.mark.parametrize("taken", [10, LARGE], ids=["by a small object", "by a large one"])
def test_the_loser_of_a_name_leaves_no_parts(blobs: RadosBlobs, taken: int) -> None:
    name = store(blobs, some_bytes(taken))
    before = keys(blobs)
    writer = blobs._create(name)
    writer.write(some_bytes(LARGE, 2))
    with pytest.raises(FileExistsError):
        writer.commit({})
    assert keys(blobs) == before


def test_a_lost_part_is_corrupt(blobs: RadosBlobs) -> None:
    name = store(blobs, some_bytes(LARGE))
    blobs._pool.remove(f"{name}.2")
    assert blobs.read(name, 0, PART_BYTES) == some_bytes(LARGE)[:PART_BYTES]
    with refused(Reason.CORRUPT):
        blobs.read(name, 0, LARGE)
    blobs.remove(name)


def test_kill_9_leaves_nothing_half_visible_and_parts_are_found(
    ceph_cluster: CephCluster, blobs: RadosBlobs, tmp_path: Path
) -> None:
    program = f"""
        import secrets
        import signal
        from pathlib import Path
        from node.adapters.blobs_rados import RadosBlobs
        objects = 0
        blobs = RadosBlobs(Path({str(ceph_cluster.conf)!r}), {ceph_cluster.user!r}, {ceph_cluster.pool!r},
            operation_seconds=45, keyring=Path({str(ceph_cluster.keyring)!r}), part_bytes={PART_BYTES})
        while True:
            name = secrets.token_hex(16)
            print("begin", name, flush=True)
            writer = blobs._create(name)
            for number in range(100):
                writer.write(name.encode() * 1000)
                if number == 60:
                    objects += 1
                    print("half", name, flush=True)
                    if objects == 3:
                        signal.pause()  # or the kill may find it between two objects, with none begun
            writer.commit({{"name": name.encode()}})
            print("done", name, flush=True)
    """
    log = tmp_path / "log"
    with log.open("wb") as output:
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=output)
    wait_until(lambda: log.read_bytes().count(b"half") >= 3, 60, "the third object is half written")
    child.send_signal(signal.SIGKILL)
    child.wait()
    told = [line.split() for line in log.read_text().splitlines()]
    acknowledged = {name for word, name in told if word == "done"}
    begun = {name for word, name in told if word == "begin"}
    visible = listed(blobs)
    assert acknowledged <= visible.keys()
    [unfinished] = begun - acknowledged
    for name in begun:
        try:
            length = blobs.size(name)
        except Refusal as refusal:
            assert refusal.reason is Reason.NOT_FOUND
            assert name == unfinished
            assert name in visible, "what is left of it can be found"
            continue
        assert blobs.read(name, 0, length) == name.encode() * 100_000
        assert blobs.attributes(name) == {"name": name.encode()}
    for name in begun:
        blobs.remove(name)
    assert not {key for key in keys(blobs) if key[:32] in begun}


def test_foreign_keys_are_not_listed(blobs: RadosBlobs) -> None:
    blobs._pool.create("README", b"hello", {})
    try:
        assert "README" not in listed(blobs)
    finally:
        blobs._pool.remove("README")


def test_a_head_without_layout_is_corrupt(blobs: RadosBlobs) -> None:
    bare, garbled = new_name(), new_name()
    blobs._pool.create(bare, b"hello", {})
    blobs._pool.create(garbled, b"hello", {"stele": b"?"})
    for name in (bare, garbled):
        with refused(Reason.CORRUPT):
            blobs.size(name)
    for name in (bare, garbled):
        blobs._pool.remove(name)


# --- No cluster ----------------------------------------------------------------------------------


def test_a_cluster_that_is_not_there(ceph_cluster: CephCluster, tmp_path: Path) -> None:
    conf = tmp_path / "ceph.conf"
    conf.write_text(f"[global]\nmon_host = v2:127.0.0.1:{free_port()}\n")
    away = RadosBlobs(conf, "client.stele", "pool", operation_seconds=2, keyring=ceph_cluster.keyring)
    answers: list[float] = []

    def ask() -> None:
        begun = time.monotonic()
        with refused(Reason.UNAVAILABLE):
            store(away, b"data")
        answers.append(time.monotonic() - begun)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert max(answers) < 10
    with refused(Reason.UNAVAILABLE):
        away.check()
    with refused(Reason.UNAVAILABLE):
        list(away.names())
    away.close()


def test_a_configuration_that_is_not_there(ceph_cluster: CephCluster, tmp_path: Path) -> None:
    no_file = RadosBlobs(tmp_path / "none", "client.stele", "pool", operation_seconds=2)
    no_pool = RadosBlobs(
        ceph_cluster.conf, ceph_cluster.user, "none", operation_seconds=5, keyring=ceph_cluster.keyring
    )
    for away in (no_file, no_pool):
        with refused(Reason.UNAVAILABLE):
            away.check()
        away.close()


# --- Bounds --------------------------------------------------------------------------------------


def test_bytes_in_flight_are_bounded() -> None:
    gate = _Gate(100, wait_seconds=30)
    lock, most, now = threading.Lock(), 0, 0

    def pass_through(length: int) -> None:
        nonlocal most, now
        for _ in range(50):
            with gate.room_for(length):
                with lock:
                    now += length
                    most = max(most, now)
                with lock:
                    now -= length

    threads = [threading.Thread(target=pass_through, args=(length,)) for length in (10, 30, 60, 60, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 60 <= most <= 100
    with gate.room_for(1000):  # alone, but not for ever kept out
        pass


def test_waiting_for_room_ends() -> None:
    gate = _Gate(100, wait_seconds=0.2)
    with gate.room_for(60), refused(Reason.UNAVAILABLE), within(5), gate.room_for(60):
        pass
    with gate.room_for(100):
        pass


def test_the_same_pool_handle_serves_all_threads(ceph_cluster: CephCluster) -> None:
    pool = RadosPool(
        ceph_cluster.conf,
        ceph_cluster.user,
        ceph_cluster.pool,
        operation_seconds=30,
        keyring=ceph_cluster.keyring,
        bytes_in_flight_max=1 << 20,
    )
    handles: list[object] = []
    threads = [threading.Thread(target=lambda: handles.append(pool._connected())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handles) == 8
    assert len({id(handle) for handle in handles}) == 1
    pool.close()
