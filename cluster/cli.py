"""The command line `stele-cluster`."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
import yaml
from rich.console import Console

from cluster import assess, backups, members, membership, operate, render, rollout, show
from cluster.backups import BackupsUnknown
from cluster.clients import NoCertificate
from cluster.etcd import Refused, Unavailable
from cluster.explain import explain
from cluster.members import NotUnderstood
from cluster.observe import observe
from cluster.operate import NotNow
from cluster.parse import parse
from cluster.patroni import PatroniUnavailable
from cluster.places import PLACES
from cluster.render.text import File
from cluster.topology import Host, Topology, WrongTopology

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Stele's cluster: its configuration, its state, and what operators do with it.",
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

TopologyFile = Annotated[
    Path, typer.Option("--topology", envvar="STELE_TOPOLOGY", help="YAML file that describes the cluster")
]
HostName = Annotated[str, typer.Option("--host", help="a host's name in the topology")]
DEFAULT_TOPOLOGY = Path(PLACES.topology)


def main() -> None:
    """Entry point: what an operator can mend ends with a line that says how, not with a traceback."""
    try:
        app()
    except WrongTopology as wrong:
        _fail(str(wrong), code=2)
    except (BackupsUnknown, NoCertificate, NotNow, PatroniUnavailable, Unavailable, Refused) as error:
        _fail(str(error))


def _fail(message: str, code: int = 1) -> NoReturn:
    for line in message.splitlines():
        err.print(f"stele-cluster: {line}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise SystemExit(code)


def _topology(file: Path) -> Topology:
    try:
        mapping = yaml.safe_load(file.read_text())
    except OSError as error:
        _fail(f"{file}: {error.strerror}", code=2)
    except yaml.YAMLError as error:
        _fail(f"{file}: {error}", code=2)
    if not isinstance(mapping, Mapping):
        _fail(f"{file}: no mapping of names to values", code=2)
    return parse(mapping)


def _host(topology: Topology, name: str) -> Host:
    try:
        return topology.host(name)
    except KeyError:
        _fail(f"{name}: no such host; there are {', '.join(host.name for host in topology.hosts)}", code=2)


@app.command("topology")
def show_topology(
    file: TopologyFile = DEFAULT_TOPOLOGY,
    explained: Annotated[bool, typer.Option("--explain", help="say what may fail")] = False,
) -> None:
    """Check a topology; with --explain, say which hosts may fail before the archive stops."""
    topology = _topology(file)
    told = (
        explain(topology) if explained else f"{topology.cluster}: {len(topology.hosts)} hosts, all is well\n"
    )
    out.print(told, end="", highlight=False, markup=False, soft_wrap=True)


@app.command("render")
def render_files(
    name: HostName,
    file: TopologyFile = DEFAULT_TOPOLOGY,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="write the host's files below this folder, with manifest.json"),
    ] = None,
    tier: Annotated[str | None, typer.Option(help="only files of this tier")] = None,
) -> None:
    """Print or write every configuration file of a host."""
    topology = _topology(file)
    found = render.files(topology, _host(topology, name), file.read_text())
    if tier is not None:
        found = tuple(each for each in found if each.tier == tier)
    if folder is None:
        for each in found:
            out.print(f"# --- {each.path}\n{each.text}", highlight=False, markup=False, soft_wrap=True)
        return
    for each in found:
        _write(folder, each)
    (folder / "manifest.json").write_text(render.manifest(found))


@app.command()
def agent(name: HostName, file: TopologyFile = DEFAULT_TOPOLOGY) -> None:
    """Keep this host's HAProxy in step with the registered nodes, until SIGTERM."""
    from cluster import services

    topology = _topology(file)
    services.run_agent(topology, _host(topology, name))


@app.command()
def register(name: HostName, file: TopologyFile = DEFAULT_TOPOLOGY) -> None:
    """Keep this host's node registered while it lives, until SIGTERM."""
    from cluster import services

    topology = _topology(file)
    services.run_registrar(topology, _host(topology, name))


@app.command("backup-metrics")
def backup_metrics(name: HostName, file: TopologyFile = DEFAULT_TOPOLOGY) -> None:
    """Tell this host's node exporter how the catalog's backups and its archived log are. A timer runs it."""
    backups.write(_host(_topology(file), name))


# --- Operating ---


@app.command()
def status(
    file: TopologyFile = DEFAULT_TOPOLOGY,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Every tier at a glance. Exit status 1 if anything is wrong."""
    topology = _topology(file)
    seen = observe(topology)
    now = datetime.now(UTC)
    troubles = assess.troubles(topology, seen, now)
    if as_json:
        print(json.dumps(show.as_json(topology, seen, troubles)))
    else:
        show.show(out, topology, seen, troubles, now)
    if troubles:
        raise SystemExit(1)


@app.command()
def drain(
    name: Annotated[str, typer.Argument(help="the node's host")],
    file: TopologyFile = DEFAULT_TOPOLOGY,
    seconds: Annotated[float, typer.Option(min=0, help="wait so long for associations to end")] = 600,
    force: Annotated[bool, typer.Option("--force", help="even if no other node takes work")] = False,
) -> None:
    """Give a node no new work and wait until it has finished what it has. Exit status 1 if it has not."""
    topology = _topology(file)
    _host(topology, name)
    by = os.environ.get("SUDO_USER") or os.environ.get("USER") or "root"

    def tell(message: str) -> None:
        err.print(f"{name}: {message}", highlight=False, markup=False, soft_wrap=True)

    operate.drain(topology, name, seconds, tell, by=by, force=force)
    out.print(f"{name} is drained", highlight=False)


@app.command()
def undrain(
    name: Annotated[str, typer.Argument(help="the node's host")], file: TopologyFile = DEFAULT_TOPOLOGY
) -> None:
    """Let a node take work again."""
    topology = _topology(file)
    _host(topology, name)
    drained = operate.undrain(topology, name)
    out.print(f"{name} {'takes work again' if drained else 'was not draining'}", highlight=False)


@app.command()
def switchover(
    file: TopologyFile = DEFAULT_TOPOLOGY,
    candidate: Annotated[str | None, typer.Option("--to", help="the new primary; the best if unset")] = None,
) -> None:
    """Move PostgreSQL's primary to another host, in order; writes wait for seconds."""
    out.print(operate.switchover(_topology(file), candidate), highlight=False, markup=False)


@app.command("configure-postgres")
def configure_postgres(file: TopologyFile = DEFAULT_TOPOLOGY) -> None:
    """Bring what all PostgreSQL members share (in etcd) in step with the topology."""
    changed = operate.configure_postgres(_topology(file))
    out.print("configured" if changed else "as it should be already", highlight=False)


@app.command("rollout")
def show_rollout(
    file: TopologyFile = DEFAULT_TOPOLOGY,
    host: Annotated[str | None, typer.Option(help="say only whether this host may go down now")] = None,
) -> None:
    """The order in which to change hosts; with --host, exit status 1 and why if that one may not go down."""
    topology = _topology(file)
    facts = observe(topology).facts(topology)
    if host is None:
        for name in rollout.order(topology, facts):
            out.print(name, highlight=False)
        return
    _host(topology, host)
    objections = rollout.objections(topology, facts, host)
    if objections:
        _fail("\n".join(f"{host} may not go down: {each}" for each in objections))
    out.print(f"{host} may go down", highlight=False)


@app.command("membership")
def plan_membership(
    change: Annotated[Literal["add", "replace", "remove"], typer.Argument(help="what the hosts shall do")],
    names: Annotated[
        list[str] | None, typer.Argument(help="replace: the new host, and the dead one; remove: who leaves")
    ] = None,
    file: TopologyFile = DEFAULT_TOPOLOGY,
) -> None:
    """Whether hosts may come or go, from what etcdctl, ceph and patronictl say (JSON, standard input).

    Prints what is to be done, as JSON. Exit status 1 and why if it may not be done. The playbooks ask this.
    """
    topology = _topology(file)
    try:
        told = members.parse(json.load(sys.stdin))
    except (NotUnderstood, ValueError) as error:
        _fail(f"standard input: {error}", code=2)
    given = names or []
    if change == "add":
        plan = membership.add(topology, told)
    elif change == "remove":
        plan = membership.remove(topology, told, given)
    elif given:
        plan = membership.replace(topology, told, given[0], given[-1])
    else:
        _fail("replace: which host?", code=2)
    if plan.objections:
        _fail("\n".join(plan.objections))
    print(json.dumps(asdict(plan)))


@app.command()
def whole(
    file: TopologyFile = DEFAULT_TOPOLOGY,
    seconds: Annotated[float, typer.Option(min=0, help="wait so long for it")] = 600,
) -> None:
    """Wait until every tier is whole, but for nodes that drain. Exit status 1 and what is missing if not."""

    def tell(message: str) -> None:
        err.print(message, highlight=False, markup=False, soft_wrap=True)

    operate.wait_whole(_topology(file), seconds, tell)
    out.print("whole", highlight=False)


def _write(folder: Path, file: File) -> None:
    """Write one file, but leave it alone if it is the same already."""
    path = folder / file.path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != file.text:
        path.write_text(file.text)
    path.chmod(int(file.mode, 8))


if __name__ == "__main__":
    main()
