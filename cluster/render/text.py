"""Files of configuration: what one is, and how its text is made from a template."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

_TEMPLATES = Path(__file__).parent.parent / "templates"


@dataclass(frozen=True, slots=True)
class File:
    """One file of a host. When it changes, the units in `restarts` must restart, those in `reloads` reload.

    `once`: it is a first version only; something on the host keeps it up to date from then on. `bootstrap`:
    beginnings of lines that only point a unit at the others when it starts: it need not restart for them.
    """

    path: str
    text: str
    tier: str
    owner: str = "root"
    group: str = "root"
    mode: str = "0644"
    restarts: tuple[str, ...] = ()
    reloads: tuple[str, ...] = ()
    once: bool = False
    bootstrap: tuple[str, ...] = ()


def _quoted(value: object) -> str:
    """A string as YAML, TOML and JSON all read it."""
    return json.dumps(value, ensure_ascii=True)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(  # noqa: S701 - configuration, not HTML; values are checked when parsed
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    return environment


_templates = _environment()


def render(template: str, **values: Any) -> str:
    """The text of a template; jinja2.UndefinedError if it names a value that is not there."""
    return _templates.get_template(template).render(values)


def endpoint(address: str, port: int) -> str:
    """HOST:PORT, with an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
