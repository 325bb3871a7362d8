"""Every setting of the node, in one place, with its unit, its default and what it is for.

A setting comes from, in this order: the command line, an environment variable (`STELE_DICOM__PORT`
for `port` in `[dicom]`), the TOML file, the default. `stele serve` refuses to start on a wrong one and
says which, what it was and what would be right. `stele config` prints this file's defaults as TOML.
Only `node.bootstrap`, the command line and the edges' set-up code read settings.
"""

import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from node.domain.model import ApplicationEntity


class WrongSettings(Exception):
    """Settings that the node will not start with; the message names each, one per line."""


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


def _ae_title(value: str) -> str:
    title = value.strip()
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title is 1 to 16 printable ASCII characters without a backslash")
    return title


def _tag(value: str) -> str:
    if len(value) != 8 or any(digit not in "0123456789ABCDEF" for digit in value):
        raise ValueError("a tag is eight upper-case hexadecimal digits, like 00080060")
    return value


Network = Annotated[str, AfterValidator(_network)]
AETitle = Annotated[str, AfterValidator(_ae_title)]
Tag = Annotated[str, AfterValidator(_tag)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """A table of the TOML file; unknown names in it are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dicom(Section):
    """The DICOM listener."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - a server
    port: Port = Field(11112, description="plain DICOM")
    tls_port: Port | None = Field(None, description="DICOM TLS (PS3.15 B.9 BCP 195), none if unset")
    tls_certificate: Path | None = Field(None, description="PEM chain of the TLS listener")
    tls_key: Path | None = Field(None, description="PEM key of the TLS listener")
    tls_client_ca: Path | None = Field(None, description="PEM CAs; a client certificate is demanded")
    proxies: tuple[Network, ...] = Field(
        (), description="networks that must speak PROXY protocol v2 (TLV E1: certificate)"
    )
    workers: int = Field(2, ge=1, le=64, description="processes that share the port")
    any_calling_ae: bool = Field(False, description="take calling AE titles that are not configured")
    any_called_ae: bool = Field(False, description="take associations addressed to any AE title")
    max_pdu_bytes: int = Field(131072, ge=16384, le=1 << 20, description="largest P-DATA-TF we take")
    max_associations: int = Field(100, ge=1, description="at once, per process")
    max_associations_per_ae: int = Field(50, ge=1, description="at once, per process and calling AE")
    max_pending: int = Field(256, ge=1, description="connections not yet associated, per process")
    max_instances_per_second: float = Field(0, ge=0, description="per calling AE and process; 0: none")
    request_seconds: float = Field(10, gt=0, description="connect to complete A-ASSOCIATE-RQ, in all")
    idle_seconds: float = Field(60, gt=0, description="silence between two messages")
    message_seconds: float = Field(600, gt=0, description="first to last byte of one message, in all")
    extra_sop_classes: tuple[str, ...] = Field((), description="private storage SOP Class UIDs to take")


class Http(Section):
    """The web server."""

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - a server
    port: Port = Field(8042, description="DICOMweb, viewer, accounts, metrics")
    proxies: tuple[Network, ...] = Field((), description="networks that must speak PROXY protocol")
    workers: int = Field(1, ge=1, le=64, description="processes")
    threads: int = Field(64, ge=2, le=1024, description="requests at once, per process")
    max_request_bytes: int = Field(64 << 30, ge=1 << 20, description="largest request body")
    max_parts: int = Field(100_000, ge=1, description="instances in one STOW-RS request at most")
    keepalive_seconds: int = Field(75, ge=1, description="longer than the proxy's own idle time")
    session_seconds: int = Field(8 * 3600, ge=60, description="life of a login")
    secure_cookies: bool = Field(True, description="session cookies over HTTPS only (off in demo)")


class Catalog(Section):
    """PostgreSQL."""

    dsn: str = Field("", description="libpq connection string, hosts in a list; empty: embedded server")
    pool_size: int = Field(8, ge=1, le=200, description="connections per process at most")
    connect_seconds: float = Field(5, gt=0, description="wait for a connection out of the pool")
    statement_seconds: float = Field(30, gt=0, description="longest statement (never cuts a COMMIT)")
    free_bytes_min: int = Field(
        1 << 30, ge=0, description="embedded server: refuse intake below this much room on its disk"
    )


class Objects(Section):
    """Where objects lie."""

    kind: Literal["files", "rados"] = Field("files", description="files (embedded) or rados (Ceph)")
    path: Path | None = Field(None, description="files: the folder; DATA/objects if unset")
    conf: Path = Field(Path("/etc/ceph/ceph.conf"), description="rados: ceph.conf")
    user: str = Field("client.stele", description="rados: cephx user")
    pool: str = Field("stele.objects", description="rados: erasure-coded pool")
    operation_seconds: float = Field(45, gt=0, description="rados: above OSD grace and peering")
    free_bytes_min: int = Field(1 << 30, ge=0, description="files: refuse intake below this much room")


class Intake(Section):
    """Limits on what comes in."""

    budget_bytes: int = Field(256 << 20, ge=32 << 20, description="dataset bytes in memory, per process")
    spill_bytes: int = Field(4 << 20, ge=1 << 16, description="rados: larger objects go there in pieces")
    max_object_bytes: int = Field(8 << 30, ge=1 << 20, description="largest dataset")
    max_header_bytes: int = Field(32 << 20, ge=1 << 16, description="all but bulk data")
    max_depth: int = Field(32, ge=4, le=100, description="nesting of sequences")
    max_elements: int = Field(500_000, ge=1000, description="elements in all levels together")
    grace_seconds: float = Field(86_400, ge=0, description="age from which an orphan is collected")
    quiet_seconds: float = Field(20, ge=0, description="silence after which a series is prepared")


class Search(Section):
    """Queries. The extra tags are kept as columns of their level, matched and returned."""

    max_results: int = Field(1000, ge=1, description="QIDO-RS page at most")
    dimse_max_results: int = Field(20_000, ge=1, description="C-FIND responses at most")
    study_tags: tuple[Tag, ...] = Field((), description="further study attributes to match")
    series_tags: tuple[Tag, ...] = Field((), description="further series attributes to match")
    instance_tags: tuple[Tag, ...] = Field((), description="further instance attributes to match")


class Pixels(Section):
    """The decoder processes."""

    processes: int = Field(2, ge=1, le=64, description="decoders per web or DIMSE process at most")
    memory_bytes: int = Field(2 << 30, ge=256 << 20, description="address space of one decoder")
    seconds: float = Field(30, gt=0, description="one decode")


class Viewer(Section):
    """The web viewer."""

    path: Path | None = Field(None, description="prepared OHIF distribution; none: no /viewer")


class Settings(BaseSettings):
    """All settings. See the module's docstring for where they come from."""

    model_config = SettingsConfigDict(
        env_prefix="STELE_", env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )

    ae_title: AETitle = Field("STELE", description="our own AE title")
    data: Path = Field(Path("/var/lib/stele"), description="folder of the embedded parts and run files")
    demo: bool = Field(False, description="loopback only, any calling AE, no login")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error"
    )
    dicom: Dicom = Dicom()
    http: Http = Http()
    catalog: Catalog = Catalog()
    objects: Objects = Objects()
    intake: Intake = Intake()
    search: Search = Search()
    pixels: Pixels = Pixels()
    viewer: Viewer = Viewer()

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.dicom.tls_port and not (self.dicom.tls_certificate and self.dicom.tls_key):
            raise ValueError("dicom.tls_port needs dicom.tls_certificate and dicom.tls_key")
        if self.intake.spill_bytes * 4 > self.intake.budget_bytes:
            raise ValueError("intake.budget_bytes must be at least four times intake.spill_bytes")
        return self

    def for_demo(self) -> "Settings":
        """These settings with what `demo` stands for: loopback, any AE, no secure cookies."""
        dicom = {"host": "127.0.0.1", "any_calling_ae": True, "any_called_ae": False}
        http = {"host": "127.0.0.1", "secure_cookies": False}
        return self.model_copy(
            update={
                "dicom": self.dicom.model_copy(update=dicom),
                "http": self.http.model_copy(update=http),
            }
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, environment, TOML file, defaults."""
        toml = cls.model_config.get("toml_file")
        file = (TomlConfigSettingsSource(settings_cls),) if toml else ()
        return (init_settings, env_settings, *file)


def load(file: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Read the settings; raises WrongSettings with one line for each wrong one."""
    chosen = type("Settings", (Settings,), {"model_config": {"toml_file": file}}) if file else Settings
    if file and not file.is_file():
        raise WrongSettings(f"settings file {file}: no such file")
    try:
        settings: Settings = chosen(**(overrides or {}))
    except ValidationError as error:
        lines = []
        for wrong in error.errors(include_url=False):
            name = ".".join(str(part) for part in wrong["loc"])
            lines.append(
                f"{name} = {wrong['input']!r}: {wrong['msg']}" if name else f"settings: {wrong['msg']}"
            )
        raise WrongSettings("\n".join(lines)) from None
    except ValueError as error:  # a TOML file that does not parse
        raise WrongSettings(f"settings file {file}: {error}") from None
    return settings.for_demo() if settings.demo else settings


def check_entity(entity: ApplicationEntity, address: str) -> None:
    """Raise WrongSettings unless title, address, networks and fingerprint of an AE are well-formed."""
    wrong = []
    try:
        _ae_title(entity.title)
    except ValueError as error:
        wrong.append(f"title = {entity.title!r}: {error}")
    if address and not (entity.host and entity.port and entity.port <= 65535):
        wrong.append(f"address = {address!r}: write HOST:PORT")
    for network in entity.sources:
        try:
            _network(network)
        except ValueError as error:
            wrong.append(f"source = {network!r}: {error}")
    if entity.certificate and not re.fullmatch("[0-9a-f]{64}", entity.certificate):
        wrong.append(f"certificate = {entity.certificate!r}: a SHA-256 fingerprint has 64 hexadecimal digits")
    if wrong:
        raise WrongSettings("\n".join(wrong))


def describe() -> str:
    """Every setting as a commented TOML file: its meaning, unit and default."""
    lines = [
        "# Settings of Stele: the file given by --config or STELE_CONFIG. All values are the defaults.",
        "",
    ]
    sections: list[str] = []
    for name, info in Settings.model_fields.items():
        if isinstance(info.default, Section):
            doc = (type(info.default).__doc__ or "").strip().splitlines()[0]
            sections += ["", f"# {doc}", f"[{name}]"]
            for key, inner in type(info.default).model_fields.items():
                sections.append(_described(key, getattr(info.default, key), inner.description or ""))
        else:
            lines.append(_described(name, info.default, info.description or ""))
    return "\n".join(lines + sections)


def _described(name: str, default: Any, description: str) -> str:
    if default is None:
        return f"# {name} =   # {description}"
    value = json.dumps(list(default) if isinstance(default, tuple) else default, default=str)
    return f"{name} = {value}  # {description}" if description else f"{name} = {value}"
