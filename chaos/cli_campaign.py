"""The commands around a campaign: making the faults, and telling what came of it.

Exit codes: 0 if every promise was kept, 1 if one was broken or a recovery was late, 2 for wrong options, 3
if the campaign could not be brought to its end; the same command goes on then.
"""

import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from chaos import campaign, deploy, plan
from chaos import report as reports
from chaos.deployed import Deployed
from chaos.faults import FAULTS, Fault
from chaos.folder import Folder
from chaos.lab import cli as lab_cli
from chaos.lab import lab, records
from chaos.lab.lab import Lab
from chaos.lab.shell import LabError

OWN_LAB = "chaos"
OWN_HOSTS = 3
KEPT, BROKEN, WRONG, UNFINISHED = range(4)


def fail(message: str, code: int) -> NoReturn:
    """End the program with a line that says why."""
    typer.echo(f"stele chaos: {message}", err=True)
    raise typer.Exit(code)


def run(
    out: Annotated[Path, typer.Option(help="folder of the campaign; goes on with what it lacks")],
    scenarios: Annotated[list[str] | None, typer.Argument(help="names of faults, or FAULT+FAULT")] = None,
    seed: Annotated[int, typer.Option(help="repeats who is hit and when")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="so many, from --seed on")] = 1,
    every: Annotated[bool, typer.Option("--all", help="the whole catalogue")] = False,
    random: Annotated[int, typer.Option(min=0, help="so many scenarios drawn from --seed")] = 0,
    name: Annotated[str, typer.Option("--lab", help="the lab that the cluster is deployed on")] = "lab",
    own_lab: Annotated[
        bool, typer.Option("--own-lab", help="deploy on a lab of its own, taken down if all is kept")
    ] = False,
) -> None:
    """Make faults one after the other while clients send and read; report.html in the folder tells of it."""
    if (bool(scenarios) + every + bool(random)) != 1:
        fail("name faults, or --all, or --random", WRONG)
    names = list(FAULTS) if every else scenarios or []
    steps = plan.drawn(FAULTS, random, seed) if random else plan.catalogue(names, range(seed, seed + seeds))
    try:
        planned = [(plan.fault_of(FAULTS, fault), number) for fault, number in steps]
    except KeyError as unknown:
        fail(f"no such fault: {unknown.args[0]}", WRONG)
    out.mkdir(parents=True, exist_ok=True)
    folder = Folder(out.resolve())
    # An end in order, in which what was made is healed
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    try:
        if folder.finished and not folder.lacks(steps):
            typer.echo(f"{out}: all of it is done already")
        else:
            where = _lab(name, own=own_lab)
            cluster = deploy.enter(where)
            planned = _available(cluster, planned, named=bool(scenarios))
            result = campaign.run(cluster, planned, folder.path, lambda each: typer.echo(each.line()))
            if own_lab and result.kept:
                where.remove()
    except LabError as error:
        typer.echo(f"stele chaos: {error}", err=True)
    except (KeyboardInterrupt, SystemExit):
        typer.echo("stele chaos: interrupted", err=True)
    raise typer.Exit(_told(folder, None))


def report(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="a campaign's folder")],
    results: Annotated[Path | None, typer.Option(help="also write the table of all faults here")] = None,
) -> None:
    """Write report.html, report.json and junit.xml into a campaign's folder; exit code as of `run`."""
    try:
        code = _told(Folder(folder.resolve()), results)
    except (OSError, ValueError, TypeError, KeyError) as error:
        fail(f"{folder}: {error}", WRONG)
    raise typer.Exit(code)


def _available(
    cluster: Deployed, planned: list[tuple[Fault, int]], *, named: bool
) -> list[tuple[Fault, int]]:
    """What this cluster can have, and a line for what it cannot; that ends the program if it was asked for by
    name."""
    lacking = {fault.name: why for fault, _ in planned if (why := fault.unavailable(cluster))}
    for fault, why in lacking.items():
        typer.echo(f"{fault} is not available here: {why}", err=True)
    if lacking and named:
        raise typer.Exit(WRONG)
    return [(fault, seed) for fault, seed in planned if fault.name not in lacking]


def _told(folder: Folder, results: Path | None) -> int:
    """Write the reports; returns the exit code."""
    told = reports.write(folder, results)
    typer.echo(told.verdict)
    typer.echo(f"see {folder.path / reports.PAGE}")
    if not told.finished:
        return UNFINISHED
    return KEPT if told.kept else BROKEN


def _lab(name: str, *, own: bool) -> Lab:
    """The lab to run on; one of our own is started and deployed on first, if it has not been yet."""
    if not own:
        return lab.attach(name)
    record = records.read(OWN_LAB)
    usable = record is not None and not record.abandoned()
    where = lab.attach(OWN_LAB) if usable else lab.start(OWN_LAB, OWN_HOSTS, lab_cli.cache(), owned=False)
    if not deploy.entered(where):
        deploy.play(where, "site.yml")
    return where
