"""`python -m chaos.lab`: a lab from the command line."""

import argparse
import os
import sys
import time
from pathlib import Path

from chaos.lab import lab, records, rootfs
from chaos.lab.shell import LabError

DEFAULT_CACHE = Path(__file__).parents[2] / ".cache" / "lab"


def cache() -> Path:
    """The folder for root file system and disks: STELE_LAB_CACHE, else .cache/lab beside the sources."""
    return Path(os.environ.get("STELE_LAB_CACHE") or DEFAULT_CACHE)


def prepare(_options: argparse.Namespace) -> int:
    """Make the root file system, or say why not: without root nothing can use it anyway."""
    if os.geteuid() != 0:
        print("stele: not root, so there is no lab and what needs one is skipped", file=sys.stderr)
        return 0
    print(rootfs.ensure(cache()))
    return 0


def up(options: argparse.Namespace) -> int:
    """Start a lab and leave it running."""
    began = time.monotonic()
    started = lab.start(options.name, options.hosts, cache(), owned=False, lossy=options.lossy)
    print(f"{options.hosts} hosts answer after {time.monotonic() - began:.1f} s")
    _print_hosts(started)
    return 0


def down(options: argparse.Namespace) -> int:
    """Take a lab down, whatever state it is in; also those whose owners have died."""
    with records.locked():
        swept = lab.sweep()
        record = records.read(options.name)
        if record is not None:
            lab.Lab(record).remove()
            swept.append(options.name)
    print(f"gone: {', '.join(swept)}" if swept else "no lab was there")
    return 0


def status(_options: argparse.Namespace) -> int:
    """Print all labs of this machine."""
    for record in records.all_records():
        state = "abandoned" if record.abandoned() else f"owner {record.owner}" if record.owner else "up"
        print(f"{record.name}: {state}")
        _print_hosts(lab.Lab(record))
    return 0


def renew(options: argparse.Namespace) -> int:
    """Put a new, empty machine in a host's place, whatever state the old one is in."""
    found = lab.attach(options.name)
    if options.host not in found.hosts:
        raise LabError(f"no host {options.host!r} here; there are {', '.join(found.hosts)}")
    found.renew(options.host)
    print(f"{options.host} is a new machine")
    return 0


def add(options: argparse.Namespace) -> int:
    """Add a host to a lab."""
    _print_hosts(lab.add(options.name))
    return 0


def ssh(options: argparse.Namespace) -> int:
    """Become ssh to a host, from the clients' side."""
    found = lab.attach(options.name)
    _become(found.client_command("ssh", "-F", str(found.ssh_config), options.host, *options.command))
    return 1


def run(options: argparse.Namespace) -> int:
    """Become a command on the clients' side."""
    _become(lab.attach(options.name).client_command(*options.command))
    return 1


def _become(command: tuple[str, ...]) -> None:
    os.execvp(command[0], command)  # noqa: S606 - the user's own command


def _print_hosts(shown: lab.Lab) -> None:
    for host in shown.hosts.values():
        print(f"  {host.name}  {host.address}  {'on' if host.powered else 'off'}")


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.lab", description="Debian hosts on one machine.")
    parser.add_argument("--name", default="lab", help="of the lab (default: %(default)s)")
    commands = parser.add_subparsers(dest="command_name", required=True)
    commands.add_parser("prepare", help="make the hosts' root file system").set_defaults(action=prepare)
    starting = commands.add_parser("up", help="start a lab")
    starting.add_argument("--hosts", type=int, default=3, help="how many (default: %(default)s)")
    starting.add_argument(
        "--lossy", action="store_true", help="disks lose in a power cut what was not synced"
    )
    starting.set_defaults(action=up)
    commands.add_parser("down", help="take it down and delete it").set_defaults(action=down)
    commands.add_parser("status", help="what runs").set_defaults(action=status)
    renewing = commands.add_parser("renew", help="put a new, empty machine in a host's place")
    renewing.add_argument("host")
    renewing.set_defaults(action=renew)
    commands.add_parser("add", help="one more host").set_defaults(action=add)
    entering = commands.add_parser("ssh", help="to a host, or a command on it")
    entering.add_argument("host")
    entering.add_argument("command", nargs=argparse.REMAINDER)
    entering.set_defaults(action=ssh)
    running = commands.add_parser("run", help="a command on the clients' side")
    running.add_argument("command", nargs=argparse.REMAINDER)
    running.set_defaults(action=run)
    options = parser.parse_args()
    try:
        return int(options.action(options))
    except LabError as reason:
        print(f"stele lab: {reason}", file=sys.stderr)
        return 1
