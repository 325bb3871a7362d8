"""What hostile input and dying decoders do not do to us."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from node.adapters.codecs_process import ProcessCodecs
from node.domain import syntaxes as ts
from node.domain.errors import Reason, Refusal
from tests.support import wait_until
from tests.unit.adapters.test_codecs_codestreams import siz
from tests.unit.adapters.test_codecs_part10 import bundled, written
from tests.unit.adapters.test_codecs_render import an_image

pytestmark = pytest.mark.quiet

MEMORY_BYTES = 1 << 30


@pytest.fixture(scope="module")
def codecs() -> Iterator[ProcessCodecs]:
    codecs = ProcessCodecs(2, MEMORY_BYTES, 30)
    yield codecs
    codecs.close()


def refusal_of(call: Any, *arguments: Any, **named: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        call(*arguments, **named)
    return refused.value


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )


# --- Hostile input -------------------------------------------------------------------------------


def a_j2k_bomb(rows: int, columns: int) -> bytes:
    """A kilobyte of JPEG 2000 whose dataset agrees with its gigantic size."""
    dataset = an_image(np.zeros((2, 2), "<u2"), Rows=rows, Columns=columns)
    dataset.PixelData = encapsulate([siz(columns, rows) + bytes(1000)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return written(dataset, ts.JPEG_2000)


def test_a_kilobyte_of_j2k_that_claims_a_gigapixel_is_refused_at_once(codecs: ProcessCodecs) -> None:
    bomb = a_j2k_bomb(65535, 65535)
    codecs.decode_frames(bundled("CT_small.dcm"), [1])  # the decoder is warm
    started = time.monotonic()
    for call in (
        lambda: codecs.render(bomb, 1, "image/jpeg"),
        lambda: codecs.decode_frames(bomb, [1]),
        lambda: codecs.transcode(bomb, ts.EXPLICIT_LITTLE),
    ):
        assert refusal_of(call).comment == "a frame is over the memory limit"
    assert time.monotonic() - started < 1


def test_damaged_frames_cost_their_own_job_only(codecs: ProcessCodecs) -> None:
    """Random damage in every codec: an answer or a refusal each time, and the next job is served."""
    random = np.random.default_rng(7)
    for target in sorted(ts.ENCODABLE - ts.NATIVE - {ts.JPEG_BASELINE}):
        intact = codecs.transcode(bundled("MR_small.dcm"), target)
        start = intact.rindex(b"\xe0\x7f\x10\x00")
        for _ in range(25):
            damaged = bytearray(intact)
            for at in random.integers(start + 20, len(intact), 8):
                damaged[at] = random.integers(0, 256)
            try:
                codecs.decode_frames(bytes(damaged), [1])
            except Refusal as refusal:
                assert refusal.reason is Reason.NOT_ACCEPTABLE
        assert len(codecs.decode_frames(intact, [1])[0]) == 64 * 64 * 2


def test_many_frames_of_one_frames_order_are_bounded(codecs: ProcessCodecs) -> None:
    refusal = refusal_of(codecs.decode_frames, bundled("CT_small.dcm"), [1] * 50_000)
    assert refusal.comment == "frames are over the memory limit"


@pytest.mark.parametrize("size", [MEMORY_BYTES, MEMORY_BYTES - (1 << 20)])
def test_an_object_over_the_memory_limit_is_refused(codecs: ProcessCodecs, size: int) -> None:
    """Also one that is under it, but leaves no room for the decoder itself."""
    codecs.decode_frames(bundled("CT_small.dcm"), [1])
    before = set(children())
    large = written(an_image(np.zeros((8, 8), "<u2")), ts.EXPLICIT_LITTLE).ljust(size, b"\0")
    refusal = refusal_of(codecs.transcode, large + b"\0", ts.IMPLICIT_LITTLE)
    assert (refusal.reason, refusal.comment) == (Reason.NOT_ACCEPTABLE, "over the decoder's memory limit")
    assert codecs.decode_frames(bundled("CT_small.dcm"), [1])
    assert set(children()) == before


@pytest.mark.slow
def test_hundreds_of_megabytes_fit_into_the_limit(codecs: ProcessCodecs) -> None:
    ramp = np.arange(512 * 512, dtype="<u4").reshape(512, 512)
    frames = np.stack([(ramp // 64 + at).astype("<u2") for at in range(500)])
    original = written(an_image(frames), ts.EXPLICIT_LITTLE)
    there = codecs.transcode(original, ts.HTJ2K_LOSSLESS)
    assert codecs.transcode(there, ts.EXPLICIT_LITTLE) == original
    assert codecs.decode_frames(original, [499]) == [frames[498].tobytes()]


# --- Processes -----------------------------------------------------------------------------------


def children() -> list[int]:
    """Process ids of our decoders."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"node.adapters.decoder" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


@pytest.fixture
def alone() -> Iterator[ProcessCodecs]:
    """A pool of one, with a second for each job: a slow one takes little more than two on a quick machine."""
    codecs = ProcessCodecs(1, MEMORY_BYTES, 1.0)
    yield codecs
    codecs.close()


@pytest.fixture
def patient() -> Iterator[ProcessCodecs]:
    """A pool of one whose time is not what ends a job."""
    codecs = ProcessCodecs(1, MEMORY_BYTES, 60.0)
    yield codecs
    codecs.close()


def slow_job() -> bytes:
    """JPEG XL is the slowest encoder: this takes it seconds."""
    noise = np.random.default_rng(0).integers(0, 65536, (1, 4000, 4000)).astype("<u2")
    return written(an_image(noise[0]), ts.EXPLICIT_LITTLE)


def test_nothing_is_started_before_the_first_job(alone: ProcessCodecs) -> None:
    before = set(children())
    assert alone.decode_frames(bundled("CT_small.dcm"), [1])
    assert len(set(children()) - before) == 1
    alone.close()
    assert set(children()) == before


def test_a_job_that_takes_too_long_is_ended(alone: ProcessCodecs) -> None:
    alone.decode_frames(bundled("CT_small.dcm"), [1])
    started = time.monotonic()
    refusal = refusal_of(alone.transcode, slow_job(), ts.JPEG_XL_LOSSLESS)
    assert refusal.comment == "over the decoder's time limit"
    assert refusal.reason is Reason.NOT_ACCEPTABLE
    assert time.monotonic() - started < 15  # a machine under load
    assert alone.decode_frames(bundled("CT_small.dcm"), [1])


def test_the_death_of_a_decoder_costs_one_job(patient: ProcessCodecs) -> None:
    before = set(children())
    patient.decode_frames(bundled("CT_small.dcm"), [1])
    (decoder,) = set(children()) - before
    outcome: list[Refusal] = []
    thread = threading.Thread(
        target=lambda: outcome.append(refusal_of(patient.transcode, slow_job(), ts.JPEG_XL_LOSSLESS))
    )
    thread.start()
    stat = Path(f"/proc/{decoder}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "R", 30, "the decoder works")
    os.kill(decoder, signal.SIGKILL)
    thread.join(30)
    assert outcome[0].comment == "the decoder ended while at it"
    assert patient.decode_frames(bundled("CT_small.dcm"), [1])


def test_a_decoder_that_died_in_its_sleep_costs_nothing(alone: ProcessCodecs) -> None:
    before = set(children())
    alone.decode_frames(bundled("CT_small.dcm"), [1])
    (decoder,) = set(children()) - before
    os.kill(decoder, signal.SIGKILL)
    status = Path(f"/proc/{decoder}/stat")
    wait_until(lambda: not status.exists() or ") Z" in status.read_text(), 5, "the decoder is dead")
    assert alone.decode_frames(bundled("CT_small.dcm"), [1])


def test_who_waits_longer_than_a_job_may_take_is_told_so() -> None:
    codecs = ProcessCodecs(1, MEMORY_BYTES, 1.5)
    try:
        codecs.decode_frames(bundled("CT_small.dcm"), [1])
        job = slow_job()
        refusals: list[Refusal] = []

        def one() -> None:
            refusals.append(refusal_of(codecs.transcode, job, ts.JPEG_XL_LOSSLESS))

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        told = {(refusal.reason, refusal.comment) for refusal in refusals}
        assert (Reason.UNAVAILABLE, "decoders busy") in told
        assert (Reason.NOT_ACCEPTABLE, "over the decoder's time limit") in told
        assert len(refusals) == 4
    finally:
        codecs.close()


def test_threads_share_the_pool(codecs: ProcessCodecs) -> None:
    expected = codecs.decode_frames(bundled("693_J2KI.dcm"), [1])
    results: list[bool] = []

    def one() -> None:
        results.extend(codecs.decode_frames(bundled("693_J2KI.dcm"), [1]) == expected for _ in range(10))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [True] * 80
    assert len(children()) <= 2


def test_a_decoder_outlives_the_thread_that_asked_for_it(alone: ProcessCodecs) -> None:
    """The kernel's death signal follows the starting thread, which must not be the caller's."""
    before = set(children())
    thread = threading.Thread(target=alone.decode_frames, args=(bundled("CT_small.dcm"), [1]))
    thread.start()
    thread.join(30)
    (decoder,) = set(children()) - before
    assert alone.decode_frames(bundled("CT_small.dcm"), [1])
    assert set(children()) - before == {decoder}


def test_decoders_die_with_their_parent() -> None:
    program = (
        "import os, sys; from node.adapters.codecs_process import ProcessCodecs;"
        "codecs = ProcessCodecs(1, 1 << 30, 30); codecs.decode_frames(open(sys.argv[1], 'rb').read(), [1]);"
        "print(codecs._idle[0].process.pid, flush=True); os.read(0, 1)"
    )
    path = get_testdata_file("CT_small.dcm")
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    decoder = int(parent.stdout.readline())
    assert Path(f"/proc/{decoder}").exists()
    parent.kill()
    parent.communicate()

    def gone() -> bool:
        try:
            return ") Z" in Path(f"/proc/{decoder}/stat").read_text()
        except OSError:
            return True

    wait_until(gone, 5, "the decoder ends with its parent")


def test_after_close_there_is_no_more_decoding() -> None:
    codecs = ProcessCodecs(1, MEMORY_BYTES, 5)
    codecs.close()
    refusal = refusal_of(codecs.decode_frames, bundled("CT_small.dcm"), [1])
    assert refusal.reason is Reason.UNAVAILABLE


def test_a_decoder_has_given_up_what_it_does_not_need(alone: ProcessCodecs) -> None:
    before = set(children())
    alone.decode_frames(bundled("CT_small.dcm"), [1])
    (decoder,) = set(children()) - before
    status = Path(f"/proc/{decoder}/status").read_text()
    limits = Path(f"/proc/{decoder}/limits").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert int(re.findall(r"Threads:\t(\d+)", status)[0]) == 1
    assert re.search(rf"Max address space +{MEMORY_BYTES} ", limits)
    for name in ("Max core file size", "Max file size", "Max processes"):
        assert re.search(rf"{name} +0 ", limits), name
    assert len(list(Path(f"/proc/{decoder}/fd").iterdir())) <= 6
    assert os.getsid(decoder) == decoder
    if os.geteuid() == 0:
        assert re.search(r"Uid:(\t65534){4}", status)
        assert re.search(r"CapEff:\t0+\n", status)
        assert Path(f"/proc/{decoder}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        "open('/tmp/stele-decoder-was-here', 'w')",
        "socket.socket()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "ctypes.CDLL(None).unshare(0x10000000) and os.listdir('/proc')",
        "os.listdir('/')",
    ],
)
def test_code_in_a_decoder_cannot_reach_out(attempt: str) -> None:
    """As if a codec had been taken over: any code, after the privileges are gone."""
    program = (
        "import os, socket, sys, ctypes, encodings.utf_8\n"
        "from node.adapters.decoder import sandbox\n"
        "sandbox.enter(1 << 30, os.getppid())\n"
        f"try:\n    {attempt}\nexcept OSError as error:\n    print(error.errno, flush=True)\n"
        "else:\n    print('done', flush=True)\n"
        "os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("1", "")  # EPERM


def test_a_decoder_cannot_take_more_memory_than_it_may() -> None:
    program = (
        "import os\n"
        "from node.adapters.decoder import sandbox\n"
        "sandbox.enter(300 << 20, os.getppid())\n"
        "try:\n    bytearray(400 << 20)\nexcept MemoryError:\n    print('refused', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.strip() == "refused"


def test_the_parent_imports_no_codec() -> None:
    program = (
        "import sys, node.adapters.codecs_process\n"
        "print([name for name in ('imagecodecs', 'numpy', 'PIL', 'rle', 'pydicom') if name in sys.modules])"
    )
    done = python(program)
    assert done.stdout.strip() == "[]"
