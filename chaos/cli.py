"""The command line of the suite: judging what programs on the clients' side have recorded."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from chaos import campaign, corpus, deploy, history
from chaos.checks import CHECKS, findings_in, leaks_in
from chaos.faults import FAULTS
from chaos.lab import lab
from chaos.lab.shell import LabError
from chaos.model import GAP_SECONDS, OPERATION_SECONDS, Evidence, Limits
from chaos.readback.whole import load

SHOWN = 20  # different violations of each check

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Faults in every tier while clients watch."
)


@app.callback()
def suite() -> None:
    """Faults in every tier while clients watch."""


@app.command("list")
def show_faults() -> None:
    """The faults that can be made."""
    for fault in FAULTS.values():
        typer.echo(f"{fault.name:20} {fault.tier:11} within {fault.recovery_seconds:g} s: {fault.what}")


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
        typer.echo(f"stele chaos: no such fault: {', '.join(unknown)}", err=True)
        raise typer.Exit(2)
    out.mkdir(parents=True, exist_ok=True)
    try:
        cluster = deploy.enter(lab.attach(name))
        plan = [(FAULTS[each], seed) for each in scenarios]
        result = campaign.run(cluster, plan, out.resolve(), lambda outcome: typer.echo(outcome.line()))
    except LabError as error:
        typer.echo(f"stele chaos: {error}", err=True)
        raise typer.Exit(1) from None
    for violation in result.violations[:SHOWN]:
        typer.echo(str(violation))
    typer.echo(
        f"{result.acknowledged} acknowledged, {len(result.violations)} violations,"
        f" {len(result.late)} of {len(result.outcomes)} recoveries late"
    )
    raise typer.Exit(1 if result.violations or result.late else 0)


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
    try:
        recorded = history.read(histories)
        seen = load(readback)
        pages = [path.with_name(f"{path.name}.pages") for path in (*histories, readback)]
        texts = [*(text or ()), *(path for path in pages if path.exists())]
        seen.leaks += leaks_in({str(path): path.read_text(errors="replace") for path in texts})
        if findings is not None:
            seen.findings, seen.orphans = findings_in(findings.read_text())
    except (OSError, ValueError, TypeError, KeyError) as error:
        typer.echo(f"stele chaos: {error}", err=True)
        raise typer.Exit(2) from None
    sent = [each.row for each in corpus.all_instances(recorded.corpora)]
    limits = Limits(operation_seconds, gap_seconds, frozenset(service or ()))
    evidence = Evidence(recorded.runs, sent, seen, limits)
    broken = False
    for name, look in CHECKS.items():
        found = list(look(evidence))
        broken = broken or bool(found)
        typer.echo(f"{name}: {f'{len(found)} violations' if found else 'holds'}")
        for what, times in islice(Counter(each.what for each in found).items(), SHOWN):
            typer.echo(f"  {what}{f' ({times} times)' if times > 1 else ''}")
    raise typer.Exit(1 if broken else 0)
