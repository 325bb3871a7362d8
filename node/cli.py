"""The command line `stele`."""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from node import bootstrap
from node import log as logs
from node.config import Settings, WrongSettings, describe, load
from node.domain.errors import Refusal
from node.domain.model import Actor, ApplicationEntity, AuditEvent, Role
from node.services.archive import Archive
from node.services.check import Finding

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Stele, a clustered PACS archive.",
    pretty_exceptions_enable=False,  # its boxes would break lines that a log collector reads
)
users = typer.Typer(no_args_is_help=True, help="People who log in.")
machines = typer.Typer(no_args_is_help=True, help="Machines that use bearer tokens.")
entities = typer.Typer(no_args_is_help=True, help="Application entities (DICOM peers).")
app.add_typer(users, name="user")
app.add_typer(machines, name="machine")
app.add_typer(entities, name="ae")
out = Console()
err = Console(stderr=True)

Config = Annotated[Path | None, typer.Option("--config", envvar="STELE_CONFIG", help="TOML file")]
Data = Annotated[Path | None, typer.Option("--data", help="folder of the embedded parts")]


def main() -> None:
    """Entry point: errors that an operator can mend end with one line, not with a traceback."""
    try:
        app()
    except WrongSettings as wrong:
        _fail(str(wrong), code=2)
    except Refusal as refusal:
        _fail(str(refusal))


def _fail(message: str, code: int = 1) -> NoReturn:
    err.print(f"stele: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise SystemExit(code)


def _settings(config: Path | None, data: Path | None, **overrides: Any) -> Settings:
    given: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    if data is not None:
        given["data"] = data.absolute()
    return load(config, given)


@contextlib.contextmanager
def _archive(config: Path | None, data: Path | None) -> Iterator[tuple[Settings, Archive]]:
    """The archive for one command, beside a running `stele serve` or without one."""
    settings = _settings(config, data)
    logs.set_up(settings.log_level, "command")
    with bootstrap.with_catalog(settings) as resolved:
        bootstrap.migrate_catalog(resolved)
        archive = bootstrap.build(resolved)
        try:
            yield resolved, archive
        finally:
            archive.close()


def _operator() -> Actor:
    """Who runs this command, for the audit trail."""
    return Actor(
        os.environ.get("SUDO_USER") or os.environ.get("USER") or "root", "", "node", Role.ADMINISTRATOR
    )


# --- Serving ---


@app.command()
def serve(
    role: Annotated[str, typer.Argument(help="all, dimse, web or worker")] = "all",
    config: Config = None,
    data: Data = None,
    dicom_port: Annotated[int | None, typer.Option(help="DICOM port")] = None,
    http_port: Annotated[int | None, typer.Option(help="HTTP port")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="loopback only, any AE, no login")] = False,
    with_dimse: Annotated[
        bool, typer.Option("--with-dimse", help="role web: another unit of this node serves DICOM")
    ] = False,
) -> None:
    """Serve DICOM and DICOMweb until SIGTERM."""
    from node.supervisor import ROLES, Supervisor

    if role not in ("all", *ROLES):
        _fail(f"role = {role!r}: choose all, dimse, web or worker", code=2)
    overrides: dict[str, Any] = {}
    if dicom_port is not None:
        overrides["dicom"] = {"port": dicom_port}
    if http_port is not None:
        overrides["http"] = {"port": http_port}
    settings = _settings(config, data, demo=demo or None, **overrides)
    if role != "all" and not settings.catalog.dsn:
        _fail("catalog.dsn = '': a single role needs a PostgreSQL of its own; or run `stele serve`", code=2)
    logs.set_up(settings.log_level, "supervisor")
    if settings.demo:
        err.print(
            "DEMO: everyone on this machine may read, store and delete, without login. "
            "Listening on loopback only.",
            style="bold yellow",
            soft_wrap=True,
        )
    Supervisor(settings, ROLES if role == "all" else (role,), with_dimse=with_dimse).run()


@app.command(hidden=True)
def process(
    role: str,
    file: Path,
    with_dimse: Annotated[bool, typer.Option("--with-dimse", help="this node serves DICOM, too")] = False,
) -> None:
    """One process of a running `stele serve` (started by its supervisor)."""
    from node.supervisor import die_with_parent

    die_with_parent()
    logs.set_up("info", role)  # until the settings are known
    settings = bootstrap.resolved(file)
    logs.set_up(settings.log_level, role)
    try:
        _serve_role(role, settings, with_dimse=with_dimse)
    except Refusal as refusal:
        logs.log.error("cannot serve", reason=refusal.reason.value, comment=refusal.comment)
        raise SystemExit(1) from None


def _serve_role(role: str, settings: Settings, *, with_dimse: bool) -> None:
    if role == "web":
        from node.web.serve import serve as serve_web

        serve_web(settings, lambda: bootstrap.build(settings), with_dimse=with_dimse)
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    archive = bootstrap.build(settings)
    try:
        if role == "dimse":
            from node.dimse.serve import serve as serve_dimse

            serve_dimse(settings, archive, stop)
        else:
            bootstrap.run_workers(settings, archive, f"{socket.gethostname()}:{os.getpid()}", stop)
    finally:
        archive.close()


@app.command("config")
def show_config() -> None:
    """Print every setting with its default and meaning, as a TOML file to start from."""
    out.print(describe(), markup=False, highlight=False, soft_wrap=True)


# --- Catalog and objects ---


@app.command()
def migrate(config: Config = None, data: Data = None) -> None:
    """Bring the catalog's schema up to date."""
    settings = _settings(config, data)
    with bootstrap.with_catalog(settings) as resolved:
        for name in bootstrap.migrate_catalog(resolved):
            out.print(f"applied {name}", highlight=False)


@app.command()
def check(
    config: Config = None,
    data: Data = None,
    quick: Annotated[bool, typer.Option("--quick", help="look at lengths, do not read bytes")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="mend what a copy exists for")] = False,
    folders: Annotated[
        list[Path] | None,
        typer.Option("--from", exists=True, file_okay=False, help="files that may be copies; repeat"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Compare catalog and objects, and walk the audit chain. Exit status 1 if anything is wrong (with
    --repair: if anything stays wrong)."""
    if folders and not repair:
        _fail("--from: only together with --repair", code=2)
    wrong = mended = 0
    with _archive(config, data) as (settings, archive):
        findings = bootstrap.build_check(settings, archive).run(
            read_bytes=not quick, mend=_operator() if repair else None, folders=tuple(folders or ())
        )
        for finding in findings:
            wrong += not finding.mended
            mended += finding.mended
            text = json.dumps(asdict(finding)) if as_json else _line(finding)
            out.print(text, highlight=False, markup=False, soft_wrap=True)
    if not as_json:
        agree = "catalog, objects and audit trail agree"
        out.print(f"{wrong} wrong, {mended} mended" if wrong or mended else agree, highlight=False)
    if wrong:
        raise SystemExit(1)


def _line(finding: Finding) -> str:
    notes = [note for note in (finding.detail, "mended" if finding.mended else "") if note]
    return f"{finding.kind}: {finding.name}" + (f" ({', '.join(notes)})" if notes else "")


@app.command()
def rebuild(config: Config = None, data: Data = None) -> None:
    """Make the catalog's rows anew from the objects alone."""
    fine = ("stored", "duplicate", "deleted")
    counts: dict[str, int] = {}
    with _archive(config, data) as (_, archive), out.status("reading objects"):
        for rebuilt in bootstrap.build_rebuild(archive).run(_operator()):
            counts[rebuilt.result] = counts.get(rebuilt.result, 0) + 1
            if rebuilt.result not in fine:
                err.print(f"{rebuilt.result}: object {rebuilt.name}", highlight=False, soft_wrap=True)
    out.print(", ".join(f"{count} {result}" for result, count in counts.items()) or "nothing to rebuild")
    if set(counts) - set(fine):
        raise SystemExit(1)


@app.command()
def send(
    folder: Annotated[Path, typer.Argument(exists=True, help="a folder or a Part 10 file")],
    address: Annotated[str, typer.Argument(help="HOST:PORT of the AE")],
    called: Annotated[str, typer.Option(help="its AE title")] = "STELE",
    calling: Annotated[str, typer.Option(help="our AE title")] = "STELE_SEND",
) -> None:
    """Send every DICOM file of a folder to an AE by C-STORE, as it is."""
    from rich.progress import Progress

    from node.services.send import send_folder

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        _fail(f"address = {address!r}: write HOST:PORT", code=2)
    entity = ApplicationEntity(called, host, int(port))
    with Progress(console=err) as progress:
        task = progress.add_task("sending", total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        result = send_folder(bootstrap.open_peers(calling), entity, folder, report)
    for path in result.differing:
        told = "sent under its dataset's SOP UIDs, its meta information has others"
        err.print(f"{path}: {told}", highlight=False, markup=False, soft_wrap=True)
    for path, why in result.failed:
        err.print(f"{path}: {why}", highlight=False, markup=False, soft_wrap=True)
    out.print(f"{result.sent} sent, {len(result.failed)} failed", highlight=False)
    if result.failed or not result.sent:
        raise SystemExit(1)


# --- Accounts and AEs ---


@users.command("add")
def add_user(
    name: str,
    role: Annotated[Role, typer.Option(help="what the account may do")] = Role.VIEWER,
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)] = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Create a person's account, or replace it (which ends its sessions)."""
    if len(password) < 12:
        _fail("password: at least 12 characters", code=2)
    with _archive(config, data) as (_, archive):
        archive.access.add_user(name, password, role, _operator())
    out.print(f"user {name} is {role.value}", highlight=False)


@machines.command("add")
def add_machine(
    name: str,
    role: Annotated[Role, typer.Option(help="what the machine may do")] = Role.TECHNOLOGIST,
    config: Config = None,
    data: Data = None,
) -> None:
    """Create a machine's account and print its bearer token, which is shown only this once."""
    with _archive(config, data) as (_, archive):
        secret = archive.access.add_machine(name, role, _operator())
    out.print(secret, highlight=False, soft_wrap=True)


@entities.command("add")
def add_entity(
    title: str,
    address: Annotated[str, typer.Option(help="HOST:PORT to reach it (C-MOVE destination)")] = "",
    tls: Annotated[bool, typer.Option(help="reach it by TLS")] = False,
    source: Annotated[list[str] | None, typer.Option(help="network it may call from (CIDR); repeat")] = None,
    certificate: Annotated[str, typer.Option(help="SHA-256 fingerprint of its client certificate")] = "",
    store: Annotated[bool, typer.Option(help="may store")] = True,
    retrieve: Annotated[bool, typer.Option(help="may query and retrieve")] = True,
    max_associations: Annotated[int, typer.Option(min=0, help="at once per process; 0: the default")] = 0,
    max_rate: Annotated[float, typer.Option(min=0, help="instances per second and process; 0: any")] = 0,
    max_object_bytes: Annotated[int, typer.Option(min=0, help="largest dataset; 0: the default")] = 0,
    config: Config = None,
    data: Data = None,
) -> None:
    """Configure a peer, or replace its configuration; in force everywhere within seconds."""
    from node.config import check_entity

    host, _, port = address.rpartition(":")
    entity = ApplicationEntity(
        title=title,
        host=host or None,
        port=int(port) if port.isdigit() else None,
        tls=tls,
        sources=tuple(source or ()),
        certificate=certificate.replace(":", "").lower() or None,
        may_store=store,
        may_retrieve=retrieve,
        max_associations=max_associations,
        max_instances_per_second=max_rate,
        max_object_bytes=max_object_bytes,
    )
    check_entity(entity, address)
    with _archive(config, data) as (_, archive):
        archive.catalog.entities.put(entity, AuditEvent("manage", _operator(), detail={"ae": title}))
    out.print(f"AE {title} configured", highlight=False)


@entities.command("list")
def list_entities(config: Config = None, data: Data = None) -> None:
    """All configured peers."""
    table = Table("title", "address", "may", "from")
    with _archive(config, data) as (_, archive):
        for entity in archive.catalog.entities.all():
            may = [
                word for word, yes in (("store", entity.may_store), ("retrieve", entity.may_retrieve)) if yes
            ]
            address = f"{entity.host}:{entity.port}{' TLS' if entity.tls else ''}" if entity.host else ""
            table.add_row(entity.title, address, " ".join(may), " ".join(entity.sources) or "anywhere")
    out.print(table)


@entities.command("remove")
def remove_entity(title: str, config: Config = None, data: Data = None) -> None:
    """Forget a peer."""
    with _archive(config, data) as (_, archive):
        event = AuditEvent("manage", _operator(), detail={"ae": title, "removed": True})
        if not archive.catalog.entities.drop(title, event):
            _fail(f"no AE {title}")
    out.print(f"AE {title} removed", highlight=False)


if __name__ == "__main__":
    main()
