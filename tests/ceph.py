"""A small real Ceph for tests: one monitor, one manager, three OSDs, from the distribution's packages.

Everything lies in one temporary folder and listens on loopback; the daemons are children of the test
process, die with it, and are ended by `CephCluster.close`. The pool is erasure-coded 2+1 over OSDs,
writable with any two of the three. Times are shorter than in production, so that tests need not wait
for a production cluster's patience.
"""

import base64
import importlib.util
import json
import mmap
import os
import secrets
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import free_port, require, wait_until

OSDS = (0, 1, 2)
POOL = "stele.objects"
PLACEMENT_GROUPS = 8
START_SECONDS = 180.0  # about 20 on two idle cores
DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL")  # however the test process dies

_CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}/0]
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {folder}/keyring
run_dir = {folder}
admin_socket = {folder}/$name.asok
crash_dir = {folder}
log_file = {folder}/$name.log
log_to_stderr = false
err_to_stderr = false
debug_ms = 0
osd_crush_chooseleaf_type = 0
[mon]
mon_data = {folder}/mon
mon_cluster_log_file = {folder}/cluster.log
mon_data_avail_warn = 1
mon_data_avail_crit = 0
mon_allow_pool_delete = true
mon_osd_min_down_reporters = 1
mon_osd_adjust_heartbeat_grace = false
osd_pool_default_pg_autoscale_mode = off
auth_allow_insecure_global_id_reclaim = false
[mgr]
mgr_data = {folder}/mgr
mgr_initial_modules =
mgr_stats_period = 1
[osd]
osd_data = {folder}/osd.$id
osd_objectstore = bluestore
osd_memory_target = 939524096
osd_heartbeat_interval = 1
osd_heartbeat_grace = 6
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
bluestore_block_size = 3221225472
bluestore_block_wal_create = false
bluestore_block_db_create = false
bluestore_fsck_on_mount = false
osd_scrub_auto_repair = false
osd_op_num_shards = 2
osd_mclock_profile = high_client_ops
"""


class CephCluster:
    """A running cluster; see the module. `conf` and `keyring` are paths, `user` and `pool` names."""

    pool = POOL
    user = "client.stele"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "ceph.conf"
        self.keyring = folder / "keyring"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped: set[int] = set()
        self._admin: Any = None

    # --- Life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make and start everything; returns when the pool is clean."""
        fsid, mon_port = str(uuid.uuid4()), free_port()
        self.conf.write_text(_CONF.format(fsid=fsid, mon_port=mon_port, folder=self.folder))
        self.keyring.write_text(_keyring())
        self.keyring.chmod(0o600)
        monmap = str(self.folder / "monmap")
        address = f"[v2:127.0.0.1:{mon_port}/0]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap)
        root = ("--setuser", "root", "--setgroup", "root")
        (self.folder / "mgr").mkdir()
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", str(self.keyring), *root)
        self._spawn("mon.a", "ceph-mon", "-i", "a")
        self._connect()
        self._spawn("mgr.x", "ceph-mgr", "-i", "x")
        for osd in OSDS:
            self._make_osd(osd)
        profile = ["k=2", "m=1", "crush-failure-domain=osd"]
        self.command("osd erasure-code-profile set", name="two_and_one", profile=profile)
        self.command("osd crush rule create-erasure", name="two_and_one", profile="two_and_one")
        wait_until(lambda: self._osds_up() == len(OSDS), START_SECONDS, "three OSDs are up")
        self.command(
            "osd pool create",
            pool=POOL,
            pg_num=PLACEMENT_GROUPS,
            pgp_num=PLACEMENT_GROUPS,
            pool_type="erasure",
            erasure_code_profile="two_and_one",
            rule="two_and_one",
        )
        self.command("osd pool set", pool=POOL, var="min_size", val="2")
        self.command("osd pool application enable", pool=POOL, app="stele")
        self.wait_clean()

    def close(self) -> None:
        """End every daemon and delete everything."""
        if self._admin is not None:
            self._admin.shutdown()
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Administration --------------------------------------------------------------------------

    def command(self, prefix: str, **arguments: object) -> Any:
        """Ask the monitor (or the manager behind it); returns parsed JSON, or None for no output."""
        request = json.dumps({"prefix": prefix, "format": "json", **arguments})
        code, output, message = self._admin.mon_command(request, b"", timeout=30)
        if code != 0:
            raise RuntimeError(f"{prefix}: {code} {message}")
        return json.loads(output) if output.strip() else None

    def wait_clean(self, seconds: float = START_SECONDS) -> None:
        """Return when every placement group is active and clean."""
        wait_until(self._clean, seconds, "placement groups are active and clean")

    def stop_osd(self, osd: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill an OSD, or freeze it with SIGSTOP."""
        daemon = self._daemons[f"osd.{osd}"]
        daemon.send_signal(how)
        if how == signal.SIGSTOP:
            self._stopped.add(osd)
        else:
            daemon.wait()
            wait_until(lambda: self._osds_up() < len(OSDS), 30, f"osd.{osd} is down")

    def start_osd(self, osd: int) -> None:
        """Undo `stop_osd`; returns at once (see `wait_clean`)."""
        if osd in self._stopped:
            self._stopped.remove(osd)
            self._daemons[f"osd.{osd}"].send_signal(signal.SIGCONT)
        elif self._daemons[f"osd.{osd}"].poll() is not None:
            self._spawn(f"osd.{osd}", "ceph-osd", "-i", str(osd))

    def set_full(self) -> None:
        """Lower the ratio at which OSDs count as full below what they hold; returns when they do."""
        for kind in ("nearfull", "backfillfull", "full"):
            self.command(f"osd set-{kind}-ratio", ratio=0.0001)
        wait_until(self._pool_is_full, 60, "the pool is full")

    def clear_full(self) -> None:
        """Undo `set_full`; returns when the pool takes writes."""
        for kind, ratio in (("full", 0.95), ("backfillfull", 0.9), ("nearfull", 0.85)):
            self.command(f"osd set-{kind}-ratio", ratio=ratio)
        wait_until(lambda: not self._pool_is_full(), 60, "the pool is not full")

    def osd_of(self, name: str, shard: int) -> int:
        """Which OSD holds a shard (0 and 1: data, 2: parity) of an object."""
        placed = self.command("osd map", pool=POOL, object=name)
        return int(placed["acting"][shard])

    def flip_bits_on_disk(self, osd: int, content: bytes) -> int:
        """Flip a bit of every copy of `content` (unique, aligned, 4 KiB or less) on an OSD's device.

        What a failing disk does: BlueStore's own checksum no longer fits. The OSD is down meanwhile.
        Returns how many copies there were.
        """
        self.stop_osd(osd)
        found = 0
        device = self.folder / f"osd.{osd}" / "block"
        with device.open("r+b") as file, mmap.mmap(file.fileno(), 0) as disk:
            for start, end in _written(file.fileno()):
                at = disk.find(content, start, end)
                while at >= 0:
                    disk[at + len(content) // 2] ^= 0x10
                    found += 1
                    at = disk.find(content, at + 1, end)
            disk.flush()
        self.start_osd(osd)
        self.wait_clean()
        return found

    def corrupt_shard(self, name: str, shard: int) -> None:
        """Flip a bit in a shard with ceph-objectstore-tool: BlueStore's checksum fits the wrong bytes.

        Only the digest that Ceph keeps of a whole shard (or the reader's own) can tell.
        """
        osd = self.osd_of(name, shard)
        self.stop_osd(osd)
        tool = ("ceph-objectstore-tool", "--data-path", str(self.folder / f"osd.{osd}"))
        listed = self._run(*tool, "--op", "list", name).decode()
        [where] = [line for line in listed.splitlines() if json.loads(line)[1]["shard_id"] == shard]
        data = bytearray(self._run(*tool, where, "get-bytes"))
        data[len(data) // 2] ^= 0x10
        changed = self.folder / "changed"
        changed.write_bytes(data)
        self._run(*tool, where, "set-bytes", str(changed))
        self.start_osd(osd)
        self.wait_clean()

    # --- Inside ----------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.conf)}

    def _run(self, *command: str) -> bytes:
        done = subprocess.run(command, capture_output=True, timeout=120, env=self._environment(), check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-2000:]}")
        return done.stdout

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                [*DIE_WITH_US, *command, "-f", "--setuser", "root", "--setgroup", "root"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
            )

    def _connect(self) -> None:
        import rados

        self._admin = rados.Rados(
            conffile=str(self.conf),
            name="client.admin",
            conf={"client_mount_timeout": "60", "rados_mon_op_timeout": "30"},
        )
        self._admin.connect()

    def _make_osd(self, osd: int) -> None:
        identity = str(uuid.uuid4())
        (self.folder / f"osd.{osd}").mkdir()
        assert self.command("osd new", uuid=identity)["osdid"] == osd
        self._run(
            "ceph-osd",
            "-i",
            str(osd),
            "--mkfs",
            "--osd-uuid",
            identity,
            "--setuser",
            "root",
            "--setgroup",
            "root",
        )
        self._spawn(f"osd.{osd}", "ceph-osd", "-i", str(osd))

    def _osds_up(self) -> int:
        return int(self.command("osd stat")["num_up_osds"])

    def _clean(self) -> bool:
        osds = self.command("osd dump")["osds"]
        if any(osd["up"] != 1 for osd in osds):
            return False
        # With three shards on three OSDs every group peers anew whenever an OSD comes or goes: reports
        # that are older than the last such change say nothing.
        since = max(max(osd["up_from"], osd["down_at"]) for osd in osds)
        groups = self.command("pg ls-by-pool", poolstr=POOL)["pg_stats"]
        return len(groups) == PLACEMENT_GROUPS and all(
            group["state"] == "active+clean" and int(group["reported_epoch"]) >= since for group in groups
        )

    def _pool_is_full(self) -> bool:
        pools = self.command("osd dump")["pools"]
        return any(pool["pool_name"] == POOL and "full" in pool["flags_names"].split(",") for pool in pools)


@pytest.fixture(scope="session")
def ceph_cluster() -> Iterator[CephCluster]:
    """One cluster for the whole test run; a test that breaks it mends it."""
    require("ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", needs_root=True)
    require_rados()
    cluster = CephCluster(Path(tempfile.mkdtemp(prefix="stele-ceph-")))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def require_rados() -> None:
    """Skip (or fail, see `require`) without Debian's python3-rados."""
    if importlib.util.find_spec("rados") is None:
        require("python3-rados")


def _keyring() -> str:
    """Keys and capabilities of everybody, as ceph-authtool would write them."""
    everything = {"mon": "allow *", "osd": "allow *", "mgr": "allow *"}
    who: dict[str, dict[str, str]] = {
        "mon.": {"mon": "allow *"},
        "client.admin": everything,
        "mgr.x": {"mon": "allow profile mgr", "osd": "allow *"},
        "client.stele": {"mon": "profile rbd", "osd": f"allow rwx pool={POOL}"},
        **{
            f"osd.{osd}": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"}
            for osd in OSDS
        },
    }
    lines = []
    for entity, capabilities in who.items():
        key = struct.pack("<HIIH", 1, int(time.time()), 0, 16) + secrets.token_bytes(16)
        lines += [f"[{entity}]", f"\tkey = {base64.b64encode(key).decode()}"]
        lines += [f'\tcaps {daemon} = "{allowed}"' for daemon, allowed in capabilities.items()]
    return "\n".join(lines) + "\n"


def _written(descriptor: int) -> Iterator[tuple[int, int]]:
    """The ranges of a sparse file that hold data."""
    at, size = 0, os.fstat(descriptor).st_size
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at
