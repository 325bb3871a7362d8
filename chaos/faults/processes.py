"""What is done to processes of a host: killed, kept down, stopped."""

import random
import shlex
import time

from chaos.deployed import Deployed
from chaos.faults.fault import Injected, nothing
from chaos.lab.host import Host
from chaos.lab.shell import LabError


def any_host(cluster: Deployed, generator: random.Random) -> Host:
    """One of the hosts."""
    return generator.choice(list(cluster.lab.hosts.values()))


def units(host: Host, *patterns: str) -> list[str]:
    """Names of a host's running units that fit a pattern."""
    listed = host.run("systemctl", "list-units", "--plain", "--no-legend", "--state=running", *patterns)
    return [line.split()[0] for line in listed.decode().splitlines()]


def running(cluster: Deployed, *patterns: str) -> list[Host]:
    """The hosts that run a unit that fits a pattern; LabError if there are none."""
    found = [host for host in cluster.lab.hosts.values() if host.powered and units(host, *patterns)]
    if not found:
        raise LabError(f"no host runs {' or '.join(patterns)}")
    return found


def named(host: Host, *what: str) -> str:
    """How an outcome tells its victims."""
    return f"{', '.join(what)} on {host.name}"


def kill(host: Host, *names: str) -> Injected:
    """SIGKILL to all processes of units, which systemd starts again."""
    made = time.monotonic()
    host.run("systemctl", "kill", "--signal=KILL", *names)
    return Injected(named(host, *names), nothing, made=made)


def kill_main(host: Host, unit: str) -> Injected:
    """SIGKILL to a unit's main process only: what it has started lives on."""
    made = time.monotonic()
    host.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit)
    return Injected(named(host, unit), nothing, made=made)


def keep_down(host: Host, *names: str) -> Injected:
    """SIGKILL to units' main processes, and systemd does not start them again until it is healed."""
    given = shlex.join(names)
    # Each was killed a moment before: there is nothing left to stop in order, only to leave dead
    host.run("sh", "-c", f"systemctl kill --signal=KILL --kill-whom=main {given}; systemctl stop {given}")
    return Injected(named(host, *names), lambda: host.run("systemctl", "start", "--no-block", *names))


def stop(host: Host, *names: str, whom: str = "all") -> Injected:
    """SIGSTOP to units' processes (`whom`: all or main): alive, and without a word."""
    signal = ("systemctl", "kill", f"--kill-whom={whom}")
    host.run(*signal, "--signal=STOP", *names)
    return Injected(named(host, *names), lambda: host.run(*signal, "--signal=CONT", *names))


def together(*made: Injected) -> Injected:
    """Several faults as one; all are healed, even if one cannot be: its LabError comes at the end."""

    def heal() -> None:
        failed = []
        for each in made:
            try:
                each.heal()
            except LabError as error:
                failed.append(str(error))
        if failed:
            raise LabError("; ".join(failed))

    return Injected("; ".join(each.victim for each in made), heal)
