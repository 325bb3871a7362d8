"""The command line of the suite: judging what programs on the clients' side have recorded."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from chaos import campaign, deploy, drill, scenario
from chaos.checks import CHECKS
from chaos.faults import FAULTS
from chaos.judging import evidence
from chaos.lab import lab
from chaos.lab.shell import LabError
from chaos.model import GAP_SECONDS, OPERATION_SECONDS, Limits

SHOWN = 20  # different violations of each check

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Faults in every tier while clients watch."
)


@app.callback()
def suite() -> None:
    """Faults in every tier while clients watch."""


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(f"stele chaos: {message}", err=True)
    raise typer.Exit(code)


@app.command("list")
def show_faults() -> None:
    """The faults that can be made."""
    for fault in FAULTS.values():
        typer.echo(f"{fault.name:20} {fault.tier:11} within {fault.recovery_seconds:g} s: {fault.what}")


@app.command("deploy")
def deploy_cluster(
    name: Annotated[str, typer.Option("--lab", help="the lab")] = "lab",
) -> None:
    """Deploy Stele on a lab, or bring what is there up to date; says how to reach it."""
    try:
        where = lab.attach(name)
        seconds = deploy.play(where, "site.yml")
        cluster = deploy.enter(where)
        cluster.wait_well(scenario.WELL_SECONDS)
    except LabError as error:
        _fail(str(error))
    changes = sum(deploy.changed(where, "site.yml").values())
    typer.echo(f"deployed in {seconds:.0f} s, {changes} changes; from the clients' side (chaos.lab run …):")
    typer.echo(f"  {' '.join(cluster.entrance.options())}")


@app.command()
def run(
    scenarios: Annotated[list[str], typer.Argument(help="names of faults; see `list`")],
    out: Annotated[Path, typer.Option(help="folder for histories and outcomes")],
    seed: Annotated[int, typer.Option(help="repeats who is hit and what is sent")] = 1,
    name: Annotated[str, typer.Option("--lab", help="the lab that the cluster is deployed on")] = "lab",
) -> None:
    """Make faults one after the other while clients send and read; exit code 1 if a promise is broken."""
    unknown = [each for each in scenarios if each not in FAULTS]
    if unknown:
        _fail(f"no such fault: {', '.join(unknown)}", code=2)
    out.mkdir(parents=True, exist_ok=True)
    try:
        cluster = deploy.enter(lab.attach(name))
        plan = [(FAULTS[each], seed) for each in scenarios]
        result = campaign.run(cluster, plan, out.resolve(), lambda outcome: typer.echo(outcome.line()))
    except LabError as error:
        _fail(str(error))
    for violation in result.violations[:SHOWN]:
        typer.echo(str(violation))
    typer.echo(
        f"{result.acknowledged} acknowledged, {len(result.violations)} violations,"
        f" {len(result.late)} of {len(result.outcomes)} recoveries late"
    )
    raise typer.Exit(1 if result.violations or result.late else 0)


@app.command("drill")
def restore_drill(
    out: Annotated[Path, typer.Option(help="folder for histories and outcomes")],
    drills: Annotated[list[str] | None, typer.Argument(help="log, older, objects; all if none")] = None,
    seed: Annotated[int, typer.Option(help="repeats what is sent")] = 1,
    name: Annotated[str, typer.Option("--lab", help="the lab that the cluster is deployed on")] = "lab",
) -> None:
    """Wipe the catalog and restore it, from each source; exit code 1 if anything is lost or late."""
    wanted = drills or list(drill.DRILLS)
    unknown = [each for each in wanted if each not in drill.DRILLS]
    if unknown:
        _fail(f"no such drill: {', '.join(unknown)}", code=2)
    out.mkdir(parents=True, exist_ok=True)
    passed = True
    try:
        for each in wanted:
            outcome = drill.conduct(deploy.enter(lab.attach(name)), each, seed, out.resolve())
            drill.write(outcome, out)
            typer.echo(outcome.line())
            passed = passed and outcome.passed
    except LabError as error:
        _fail(str(error))
    raise typer.Exit(0 if passed else 1)


@app.command()
def check(
    histories: Annotated[list[Path], typer.Argument(help="of all traffic that the read-back has to explain")],
    readback: Annotated[Path, typer.Argument(help="what python -m chaos.readback wrote")],
    text: Annotated[
        list[Path] | None, typer.Option(help="a log, a metrics page; may name no patient")
    ] = None,
    findings: Annotated[Path | None, typer.Option(help="what stele check --json printed")] = None,
    operation_seconds: Annotated[float, typer.Option(help="longest operation")] = OPERATION_SECONDS,
    gap_seconds: Annotated[float, typer.Option(help="longest time without acknowledgement")] = GAP_SECONDS,
    service: Annotated[
        list[str] | None, typer.Option(help="HOST:PORT or URL to which --operation-seconds applies; all")
    ] = None,
) -> None:
    """Judge every invariant; exit code 1 if one does not hold, 2 if a file is not what it should be."""
    limits = Limits(operation_seconds, gap_seconds, frozenset(service or ()))
    try:
        given = evidence(histories, readback, limits, texts=text or (), findings=findings)
    except (OSError, ValueError, TypeError, KeyError) as error:
        _fail(str(error), code=2)
    broken = False
    for name, look in CHECKS.items():
        found = list(look(given))
        broken = broken or bool(found)
        typer.echo(f"{name}: {f'{len(found)} violations' if found else 'holds'}")
        for what, times in islice(Counter(each.what for each in found).items(), SHOWN):
            typer.echo(f"  {what}{f' ({times} times)' if times > 1 else ''}")
    raise typer.Exit(1 if broken else 0)
