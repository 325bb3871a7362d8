"""What every object store must do: the contract of `node.ports.Blobs` on all three adapters."""

import hashlib
import random
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.adapters.blobs_common import ATTRIBUTE_BYTES_MAX
from node.adapters.blobs_files import FileBlobs
from node.adapters.blobs_memory import MemoryBlobs
from node.domain.errors import Reason, Refusal
from node.ports import Blobs
from tests.ceph import CephCluster

PART_BYTES = 1 << 20  # for the rados adapter here, so that a few megabytes are many parts
ADAPTERS = ("memory", "files", pytest.param("rados", marks=pytest.mark.ceph))


@pytest.fixture(params=ADAPTERS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blobs]:
    store: Blobs
    if request.param == "memory":
        store = MemoryBlobs()
    elif request.param == "files":
        store = FileBlobs(tmp_path / "objects", free_bytes_min=0)
    else:
        cluster: CephCluster = request.getfixturevalue("ceph_cluster")
        from node.adapters.blobs_rados import RadosBlobs

        store = RadosBlobs(
            cluster.conf,
            cluster.user,
            cluster.pool,
            operation_seconds=45,
            keyring=cluster.keyring,
            part_bytes=PART_BYTES,
        )
    yield store
    store.close()


def new_name() -> str:
    return secrets.token_hex(16)


def some_bytes(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def store(blobs: Blobs, data: bytes, attributes: dict[str, bytes] | None = None) -> str:
    writer = blobs.create()
    writer.write(data)
    writer.commit(attributes or {})
    return writer.name


def refused(reason: Reason) -> "pytest.RaisesExc[Refusal]":
    return pytest.RaisesExc(Refusal, check=lambda refusal: refusal.reason is reason)


def listed(blobs: Blobs) -> dict[str, float]:
    found = list(blobs.names())
    assert len(found) == len(dict(found)), "a name is listed twice"
    return dict(found)


def is_absent(blobs: Blobs, name: str) -> bool:
    for ask in (lambda: blobs.size(name), lambda: blobs.attributes(name), lambda: blobs.read(name, 0, 1)):
        with refused(Reason.NOT_FOUND):
            ask()
    return name not in listed(blobs)


def test_bytes_and_attributes_come_back(blobs: Blobs) -> None:
    data = some_bytes(500_000)
    attributes = {"sha256": hashlib.sha256(data).digest(), "empty": b"", "ünïcode": b"\x00\xff"}
    name = store(blobs, data, attributes)
    assert blobs.size(name) == len(data)
    assert blobs.read(name, 0, len(data)) == data
    assert blobs.attributes(name) == attributes


def test_an_empty_object_is_an_object(blobs: Blobs) -> None:
    writer = blobs.create()
    name = writer.name
    writer.commit({"a": b"b"})
    assert blobs.size(name) == 0
    assert blobs.read(name, 0, 0) == b""
    assert blobs.attributes(name) == {"a": b"b"}
    assert name in listed(blobs)
    with refused(Reason.CORRUPT):
        blobs.read(name, 0, 1)


@pytest.mark.parametrize("length", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 5_000_000])
def test_objects_in_pieces_of_any_size(blobs: Blobs, length: int) -> None:
    data = some_bytes(length)
    writer, sizes = blobs.create(), random.Random(2)
    name = writer.name
    at = 0
    while at < length:
        end = min(length, at + sizes.choice((1, 4096, 65_537, 1 << 20, 3 << 20)))
        writer.write(data[at:end])
        at = end
    writer.commit({"pieces": b"many"})
    assert blobs.size(name) == length
    assert blobs.read(name, 0, length) == data
    assert blobs.attributes(name) == {"pieces": b"many"}
    for _ in range(20):
        start = sizes.randrange(length)
        count = sizes.randrange(length - start + 1)
        assert blobs.read(name, start, count) == data[start : start + count]
    assert name in listed(blobs)
    blobs.remove(name)
    assert is_absent(blobs, name)


def test_a_buffer_may_be_used_again_after_write(blobs: Blobs) -> None:
    buffer = bytearray(b"first")
    writer = blobs.create()
    name = writer.name
    writer.write(buffer)
    buffer[:] = b"other"
    writer.write(memoryview(buffer)[1:3])
    buffer[:] = b"third"
    writer.commit({})
    assert blobs.read(name, 0, 7) == b"firstth"


def test_ranges_to_the_end_and_beyond(blobs: Blobs) -> None:
    name = store(blobs, b"0123456789", {"after": b"the end"})
    assert blobs.read(name, 7, 3) == b"789"
    assert blobs.read(name, 10, 0) == b""
    for offset, length in ((7, 4), (10, 1), (11, 0), (1 << 40, 1)):
        with refused(Reason.CORRUPT):
            blobs.read(name, offset, length)
    with pytest.raises(ValueError, match="negative"):
        blobs.read(name, -1, 1)


def test_beyond_the_end_of_a_large_object(blobs: Blobs) -> None:
    length = 2 * PART_BYTES + 10
    name = store(blobs, some_bytes(length))
    for offset, count in ((0, length + 1), (length - 1, 2), (length, 1)):
        with refused(Reason.CORRUPT):
            blobs.read(name, offset, count)


def test_what_is_not_there_is_not_found(blobs: Blobs) -> None:
    assert is_absent(blobs, new_name())


@pytest.mark.parametrize(
    "name", ["", "../../../../etc/passwd", "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "\n"]
)
def test_only_names_are_names(blobs: Blobs, name: str) -> None:
    for ask in (blobs.size, blobs.attributes, blobs.remove, lambda n: blobs.read(n, 0, 1)):
        with pytest.raises(ValueError, match="hexadecimal"):
            ask(name)


@pytest.mark.parametrize("length", [1000, 3 * PART_BYTES])
def test_nothing_is_visible_before_commit_or_after_abort(blobs: Blobs, length: int) -> None:
    writer = blobs.create()
    name = writer.name
    writer.write(some_bytes(length))
    for ask in (lambda: blobs.size(name), lambda: blobs.attributes(name), lambda: blobs.read(name, 0, 1)):
        with refused(Reason.NOT_FOUND):
            ask()
    writer.abort()
    assert is_absent(blobs, name)
    writer.abort()
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"x")
    with pytest.raises(ValueError, match="closed"):
        writer.commit({})
    assert is_absent(blobs, name)


def test_abort_after_commit_is_harmless(blobs: Blobs) -> None:
    writer = blobs.create()
    name = writer.name
    writer.write(b"kept")
    writer.commit({})
    writer.abort()
    assert blobs.read(name, 0, 4) == b"kept"
    with pytest.raises(ValueError, match="closed"):
        writer.commit({})


def test_a_name_is_given_once(blobs: Blobs) -> None:
    writers = [blobs.create() for _ in range(100)]
    for number, writer in enumerate(writers):
        writer.write(bytes([number]))
    for writer in writers[::2]:
        writer.commit({})
    for writer in writers[1::2]:
        writer.abort()
    names = [writer.name for writer in writers] + [store(blobs, b"x") for _ in range(100)]
    assert len(set(names)) == 200
    for number, writer in enumerate(writers):
        if number % 2:
            assert is_absent(blobs, writer.name)
        else:
            assert blobs.read(writer.name, 0, 1) == bytes([number])


def test_writers_at_once_do_not_meet(blobs: Blobs) -> None:
    found: dict[str, bytes] = {}

    def many(seed: int) -> None:
        for number in range(20):
            data = bytes([seed, number])
            found[store(blobs, data)] = data

    threads = [threading.Thread(target=many, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    for name, data in found.items():
        assert blobs.read(name, 0, 2) == data


def test_attributes_of_thirty_kibibytes(blobs: Blobs) -> None:
    attributes = {"pieces": some_bytes(29 << 10), "sha256": some_bytes(32), "more": some_bytes(900)}
    name = store(blobs, b"data", attributes)
    assert blobs.attributes(name) == attributes
    assert blobs.read(name, 0, 4) == b"data"


def test_attributes_beyond_the_limit_are_refused(blobs: Blobs) -> None:
    writer = blobs.create()
    name = writer.name
    with pytest.raises(ValueError, match="attributes"):
        writer.commit({"a": bytes(ATTRIBUTE_BYTES_MAX)})
    writer.abort()
    assert is_absent(blobs, name)


@pytest.mark.parametrize("length", [10, 3 * PART_BYTES])
def test_removing_twice_is_no_error(blobs: Blobs, length: int) -> None:
    name = store(blobs, some_bytes(length))
    other = store(blobs, b"stays")
    blobs.remove(name)
    blobs.remove(name)
    assert is_absent(blobs, name)
    assert blobs.read(other, 0, 5) == b"stays"


def test_names_come_with_their_age(blobs: Blobs) -> None:
    names = {store(blobs, some_bytes(length)) for length in (0, 10, 2 * PART_BYTES)}
    ages = listed(blobs)
    assert names <= ages.keys()
    assert all(0 <= ages[name] < 60 for name in names)


def test_a_listing_may_be_left_early(blobs: Blobs) -> None:
    store(blobs, b"one")
    store(blobs, b"two")
    for _ in blobs.names():
        break
    assert len(listed(blobs)) >= 2


def test_many_writers_at_once(blobs: Blobs) -> None:
    stored: dict[str, tuple[int, int]] = {}
    failures: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for number in range(5):
                seed, length = worker * 100 + number, 1000 + 77_777 * number * worker
                stored[store(blobs, some_bytes(length, seed), {"n": bytes([number])})] = (seed, length)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(stored) == 40
    assert stored.keys() <= listed(blobs).keys()
    for name, (seed, length) in stored.items():
        assert blobs.read(name, 0, length) == some_bytes(length, seed)


def test_check_finds_a_working_store_well_and_leaves_nothing(blobs: Blobs) -> None:
    before = listed(blobs)
    for _ in range(3):
        blobs.check()
    assert listed(blobs).keys() == before.keys()
