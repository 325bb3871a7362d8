"""The command line `stele-cluster`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import yaml
from rich.console import Console

from cluster import render
from cluster.explain import explain
from cluster.parse import parse
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
    joining: Annotated[
        bool, typer.Option("--joining", help="the host is added to a cluster that runs (etcd)")
    ] = False,
) -> None:
    """Print or write every configuration file of a host."""
    topology = _topology(file)
    found = render.files(topology, _host(topology, name), file.read_text(), joining=joining)
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


def _write(folder: Path, file: File) -> None:
    """Write one file, but leave it alone if it is the same already."""
    path = folder / file.path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != file.text:
        path.write_text(file.text)
    path.chmod(int(file.mode, 8))


if __name__ == "__main__":
    main()
