"""The lab of real hosts: power, cables, commands, and that it leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.lab import cli, lab, network, records
from chaos.lab.host import Host
from chaos.lab.lab import Lab
from chaos.lab.shell import LabError
from tests.support import require, wait_until

pytestmark = pytest.mark.lab

BOOT_SECONDS = 30.0


def test_every_host_answers_on_ssh_within_half_a_minute_and_is_a_machine_of_its_own(three_hosts: Lab) -> None:
    name = f"u{os.getpid()}"
    began = time.monotonic()
    with lab.running(name, 3, cli.cache()) as second:
        assert time.monotonic() - began < BOOT_SECONDS
        hosts = [*three_hosts.hosts.values(), *second.hosts.values()]
        for host in hosts:
            assert host.ssh("systemctl", "is-system-running").stdout.strip() == b"running"
            assert host.ssh("hostname").stdout.decode().strip() == host.name
        for identity in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
            assert len({host.run("cat", identity) for host in hosts}) == len(hosts)
        # Same addresses, same names, and yet apart.
        hosts[0].run("touch", "/root/first")
        assert second.hosts["host1"].ssh("ls", "/root").stdout == b""
    assert _traces(name) == []
    assert three_hosts.hosts["host1"].ssh("ls", "/root").stdout == b"first\n"


def test_no_way_leads_out(three_hosts: Lab) -> None:
    subnet = f"{network.SUBNET}.0/{network.PREFIX_LENGTH}"
    routes = [three_hosts.client("ip", "route").stdout]
    routes += [host.run("ip", "route") for host in three_hosts.hosts.values()]
    for table in routes:
        assert [line.split()[0] for line in table.decode().splitlines()] == [subnet]


def test_power_off_is_noticed_and_the_disk_outlives_it(three_hosts: Lab) -> None:
    host, other = three_hosts.hosts["host1"], three_hosts.hosts["host2"]
    host.run("sh", "-c", "echo kept > /var/lib/kept")
    boot = host.run("cat", "/proc/sys/kernel/random/boot_id")
    host.power_off()
    assert not host.powered
    assert host.ssh("true").returncode == 255
    assert not _pings(other, host)
    with pytest.raises(LabError, match="host1 is off"):
        host.run("true")
    with pytest.raises(LabError, match="host1 is off"):
        host.power_off()
    host.power_on()
    host.wait_ready(BOOT_SECONDS)
    assert host.ssh("cat", "/var/lib/kept").stdout == b"kept\n"
    assert host.run("cat", "/proc/sys/kernel/random/boot_id") != boot
    assert _pings(other, host)
    with pytest.raises(LabError, match="host1 is on"):
        host.power_on()


def test_a_host_that_is_shut_down_stops_its_services_in_order(three_hosts: Lab) -> None:
    host = three_hosts.hosts["host3"]
    host.power_off()
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background job
    try:
        host.power_on()
    finally:
        signal.signal(signal.SIGINT, former)
    host.wait_ready()
    # It is ready when it says so: before that, its shell may not have set the trap yet.
    farewell = "trap 'echo > /root/told; exit' TERM; systemd-notify --ready; sleep 99 & wait"
    service = ("--unit=farewell", "--service-type=notify", "--property=NotifyAccess=all")
    host.run("systemd-run", *service, "sh", "-c", farewell)
    try:
        host.stop()
        assert not host.powered
        assert (host.root / "root/told").exists()
    finally:
        host.power_on()
        host.wait_ready(BOOT_SECONDS)


def test_a_new_machine_in_a_hosts_place_has_its_name_and_nothing_else_of_it(three_hosts: Lab) -> None:
    host, other = three_hosts.hosts["host3"], three_hosts.hosts["host1"]
    host.run("touch", "/root/lost")
    identities = ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub")
    before = [host.run("cat", identity) for identity in identities]
    host.power_off()
    three_hosts.renew("host3")
    assert host.ssh("ls", "/root").stdout == b""
    assert all(host.run("cat", each) != old for each, old in zip(identities, before, strict=True))
    assert host.run("hostname") == b"host3\n"
    assert _pings(other, host)
    three_hosts.renew("host3")
    assert host.ssh("true").returncode == 0, "also one that runs"


def test_a_frozen_host_does_nothing_and_goes_on_where_it_was(three_hosts: Lab) -> None:
    host = three_hosts.hosts["host2"]
    url = _serve(host, "frozen", 8001)
    served_by = host.run("systemctl", "show", "--value", "--property=MainPID", "frozen")
    host.freeze()
    try:
        with pytest.raises(LabError, match="timed out"):
            three_hosts.fetch(url)
        assert host.powered
    finally:
        host.thaw()
    assert b"etc/" in three_hosts.fetch(url)
    assert host.run("systemctl", "show", "--value", "--property=MainPID", "frozen") == served_by


def test_a_cable_can_be_cut_in_one_direction(three_hosts: Lab) -> None:
    one, two = three_hosts.hosts["host1"], three_hosts.hosts["host2"]
    assert _pings(one, two)
    try:
        three_hosts.network.cut("host2", "host1", one_way=True)
        arrived = _echo_requests(two)
        assert not _pings(one, two)  # asked, but the answer is lost
        assert _echo_requests(two) > arrived
        three_hosts.network.mend("host2", "host1", one_way=True)
        assert _pings(one, two)
        three_hosts.network.cut("host1", "host2", one_way=True)
        arrived = _echo_requests(two)
        assert not _pings(one, two)  # the question is lost
        assert _echo_requests(two) == arrived
        assert three_hosts.network.cuts() == {("host1", "host2")}
    finally:
        three_hosts.network.heal()
    assert three_hosts.network.cuts() == set()
    wait_until(lambda: _pings(one, two), 10, "the cable is whole again")


def test_a_partition_cuts_between_its_sides_only(three_hosts: Lab) -> None:
    one, two, three = three_hosts.hosts.values()
    try:
        three_hosts.network.partition(["host1"], ["host2", "host3"])
        assert not _pings(one, two)
        assert not _pings(three, one)
        assert _pings(two, three)
        assert one.ssh("true").returncode == 0  # clients are on no side
        three_hosts.network.isolate("host1")
        assert one.ssh("true").returncode == 255
        assert one.run("hostname") == b"host1\n"  # the way past the network
    finally:
        three_hosts.network.heal()
    wait_until(lambda: _pings(one, two) and one.ssh("true").returncode == 0, 10, "all cables are whole")
    with pytest.raises(LabError, match="no host 'host9' here"):
        three_hosts.network.cut("host1", "host9")


def test_frames_are_lost_at_random(three_hosts: Lab) -> None:
    one, two = three_hosts.hosts["host1"], three_hosts.hosts["host2"]
    assert _pings(one, two)
    three_hosts.network.lose("host2", 0.3)
    try:
        # Lost on the way there or back: 1 - 0.7² = 51 % of 300; 0.05 % of runs would be outside by chance.
        assert 150 - 30 < 300 - _answers(one, two, 300) < 150 + 35
    finally:
        three_hosts.network.lose("host2", 0)
    assert _answers(one, two, 300) == 300


def test_a_slow_cable_is_slow(three_hosts: Lab) -> None:
    host = three_hosts.hosts["host3"]
    host.run("sh", "-c", "head -c 1000000 /dev/urandom > /srv/megabyte")
    url = _serve(host, "slow", 8002) + "srv/megabyte"
    three_hosts.network.limit("client", 4000)
    try:
        began = time.monotonic()
        assert len(three_hosts.fetch(url)) == 1_000_000
        assert time.monotonic() - began > 1.5  # 2 s at 4 Mbit/s
    finally:
        three_hosts.network.heal()
    began = time.monotonic()
    three_hosts.fetch(url)
    assert time.monotonic() - began < 1


def test_the_journal_is_read_from_here(three_hosts: Lab) -> None:
    host = three_hosts.hosts["host1"]
    host.run("systemd-run", "--unit=teller", "--wait", "echo", "once upon a time")
    wait_until(lambda: "once upon a time" in host.journal("teller"), 10, "the journal has it")


def test_a_second_lab_of_the_same_name_is_refused(three_hosts: Lab) -> None:
    with pytest.raises(LabError, match="runs already"):
        lab.start(three_hosts.record.name, 3, cli.cache(), owned=True)
    assert all(host.powered for host in three_hosts.hosts.values())


def test_what_a_crashed_run_left_is_cleared_by_the_next_start(three_hosts: Lab) -> None:
    crashed = f"c{os.getpid()}"
    program = (
        "import sys, time; from chaos.lab import cli, lab;"
        "lab.start(sys.argv[1], 3, cli.cache(), owned=True);"
        "print('up', flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, crashed], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    client = subprocess.Popen(lab.attach(crashed).client_command("sleep", "600"))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert all(host.powered for host in _left(crashed).hosts.values())
    with pytest.raises(LabError, match="no lab named"):
        lab.attach(crashed)
    with lab.running(f"n{os.getpid()}", 3, cli.cache()):
        assert _traces(crashed) == []
    assert client.wait(10) == -signal.SIGKILL
    assert all(host.powered for host in three_hosts.hosts.values())


def test_the_command_line_starts_a_lab_that_stays_and_takes_it_down() -> None:
    require("systemd-nspawn", "debootstrap", "nft", needs_root=True)
    name = f"m{os.getpid()}"
    try:
        assert "4 hosts answer" in _command(name, "up", "--hosts", "4")
        assert _command(name, "ssh", "host4", "hostname") == "host4\n"
        assert "host5  198.18.0.15  on" in _command(name, "add")
        assert _command(name, "ssh", "host1", "getent", "hosts", "host5").split() == ["198.18.0.15", "host5"]
        assert "host4 is a new machine" in _command(name, "renew", "host4")
        assert "no host 'host9' here" in _command(name, "renew", "host9", code=1)
        assert network.CLIENT_ADDRESS in _command(name, "run", "ip", "address")
        assert f"{name}: up" in _command(name, "status")
        assert "runs already" in _command(name, "up", code=1)
        assert "host9" in _command(name, "ssh", "host9", "true", code=255)
    finally:
        assert f"gone: {name}" in _command(name, "down")
    assert _traces(name) == []
    assert _command(name, "down") == "no lab was there\n"
    assert "too few or too many" in _command(name, "up", "--hosts", "2", code=1)


# --- Helpers -------------------------------------------------------------------------------------


def _pings(source: Host, target: Host) -> bool:
    return _answers(source, target, 1) == 1


def _answers(source: Host, target: Host, count: int) -> int:
    """How many of `count` pings are answered within a second of the last."""
    command = f"ping -n -q -c {count} -i 0.01 -W 1 {target.address} || true"
    [line] = [line for line in source.run("sh", "-c", command).decode().splitlines() if "received" in line]
    return int(line.split(",")[1].split()[0])


def _echo_requests(host: Host) -> int:
    """How many pings a host has received (RFC 2011, icmpInEchos)."""
    names, values = [
        line.split()
        for line in host.run("cat", "/proc/net/snmp").decode().splitlines()
        if line.startswith("Icmp:")
    ]
    return int(values[names.index("InEchos")])


def _serve(host: Host, unit: str, port: int) -> str:
    """Let a host serve its own disk over HTTP; returns the URL of its root folder."""
    host.run(
        *("systemd-run", f"--unit={unit}", "--working-directory=/"),
        *("python3", "-m", "http.server", str(port)),
    )
    wait_until(lambda: f":{port} " in host.run("ss", "-ltn").decode(), 10, "the web server listens")
    return f"http://{host.address}:{port}/"


def _command(name: str, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "chaos.lab", "--name", name, *arguments],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return (done.stdout + done.stderr).decode()


def _left(name: str) -> Lab:
    record = records.read(name)
    assert record is not None
    return Lab(record)


def _traces(name: str) -> list[str]:
    """What is still there of a lab: namespaces, mounts, processes, control groups, files."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    traces = [line for line in mounts if f"/{name}/" in line or f"{name}-host" in line]
    traces += [space for space in network.namespaces() if space in (f"stele-{name}", f"stele-{name}-client")]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_text()
        except OSError:  # it just ended
            continue
        traces += [command] if f"{name}-host" in command else []
    traces += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/stele-lab/{name}")]
    traces += [str(path) for path in (cli.cache() / "disks").glob(name)]
    traces += [str(path) for path in Path("/run/systemd/nspawn").glob(f"*/{name}-host*")]
    traces += [str(path) for path in records.RUN.glob(name)]
    return traces
