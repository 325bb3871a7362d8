"""The command line of the suite: judging what programs on the clients' side have recorded."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from chaos import cli_campaign, deploy, drill, scenario
from chaos.bench import figures, measuring
from chaos.checks import CHECKS
from chaos.cli_campaign import BROKEN, WRONG, fail
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


app.command()(cli_campaign.run)
app.command()(cli_campaign.report)


@app.command("list")
def show_faults(
    name: Annotated[
        str | None, typer.Option("--lab", help="say also what this lab cannot have, and why")
    ] = None,
) -> None:
    """The faults that can be made."""
    try:
        cluster = deploy.enter(lab.attach(name)) if name else None
    except LabError as error:
        fail(str(error), BROKEN)
    for fault in FAULTS.values():
        promised = f"{fault.expects}, within {fault.recovery_seconds:g} s"
        typer.echo(f"{fault.name:28} {fault.tier:11} {promised:24} {fault.what}")
        if cluster is not None and (why := fault.unavailable(cluster)):
            typer.echo(f"{'':28} not available here: {why}")


@app.command("deploy")
def deploy_cluster(
    name: Annotated[str, typer.Option("--lab", help="the lab")] = "lab",
    inventory: Annotated[
        Path | None, typer.Option(exists=True, help="for Ansible; the lab's last, or its three hosts'")
    ] = None,
) -> None:
    """Deploy Stele on a lab, or bring what is there up to date; says how to reach it."""
    try:
        where = lab.attach(name)
        seconds = deploy.play(where, "site.yml", inventory=inventory)
        cluster = deploy.enter(where)
        cluster.wait_well(scenario.WELL_SECONDS)
    except LabError as error:
        fail(str(error), BROKEN)
    changes = sum(deploy.changed(where, "site.yml").values())
    typer.echo(f"deployed in {seconds:.0f} s, {changes} changes; from the clients' side (chaos.lab run …):")
    typer.echo(f"  {' '.join(cluster.entrance.options())}")


@app.command("bench")
def measure(
    out: Annotated[Path, typer.Option(help="folder for the figures, bench.json")],
    name: Annotated[str, typer.Option("--lab", help="the lab that the cluster is deployed on")] = "lab",
    rounds: Annotated[int, typer.Option(min=1, help="of which the median counts")] = measuring.ROUNDS,
    seconds: Annotated[float, typer.Option(min=1, help="that each measurement takes")] = measuring.SECONDS,
) -> None:
    """Measure intake and retrieval beside `rados bench` and the embedded archive, in one run."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        bench = measuring.Bench(deploy.enter(lab.attach(name)), rounds, seconds, typer.echo)
        bench.run()
    except (LabError, ConnectionError) as error:
        fail(str(error), BROKEN)
    (out / "bench.json").write_text(json.dumps(figures.as_json(bench.figures), indent=1))
    Console(width=110).print(figures.table(bench.figures))


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
        fail(f"no such drill: {', '.join(unknown)}", WRONG)
    out.mkdir(parents=True, exist_ok=True)
    passed = True
    try:
        for each in wanted:
            outcome = drill.conduct(deploy.enter(lab.attach(name)), each, seed, out.resolve())
            drill.write(outcome, out)
            typer.echo(outcome.line())
            passed = passed and outcome.passed
    except LabError as error:
        fail(str(error), BROKEN)
    raise typer.Exit(0 if passed else 1)


@app.command()
def check(
    histories: Annotated[list[Path], typer.Argument(help="of all traffic that the read-back has to explain")],
    readback: Annotated[Path, typer.Argument(help="what python -m chaos.readback wrote")],
    text: Annotated[
        list[Path] | None, typer.Option(help="a log, a metrics page; may name no patient")
    ] = None,
    findings: Annotated[Path | None, typer.Option(help="what stele check --json printed")] = None,
    audit: Annotated[
        Path | None, typer.Option(help="an export of the audit trail; see chaos/trail.py")
    ] = None,
    probes: Annotated[list[Path] | None, typer.Option(help="of write probes; see chaos/probing")] = None,
    operation_seconds: Annotated[float, typer.Option(help="longest operation")] = OPERATION_SECONDS,
    gap_seconds: Annotated[float, typer.Option(help="longest time without acknowledgement")] = GAP_SECONDS,
    service: Annotated[
        list[str] | None, typer.Option(help="HOST:PORT or URL to which --operation-seconds applies; all")
    ] = None,
) -> None:
    """Judge every invariant; exit code 1 if one does not hold, 2 if a file is not what it should be."""
    limits = Limits(operation_seconds, gap_seconds, frozenset(service or ()))
    try:
        given = evidence(
            histories, readback, limits, texts=text or (), findings=findings, audit=audit, probes=probes or ()
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        fail(str(error), WRONG)
    broken = False
    for name, look in CHECKS.items():
        found = list(look(given))
        broken = broken or bool(found)
        typer.echo(f"{name}: {f'{len(found)} violations' if found else 'holds'}")
        for what, times in islice(Counter(each.what for each in found).items(), SHOWN):
            typer.echo(f"  {what}{f' ({times} times)' if times > 1 else ''}")
    raise typer.Exit(1 if broken else 0)
