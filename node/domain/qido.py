"""QIDO-RS query parameters (PS3.18 section 8.3.4) as a plain value."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.domain import dictionary
from node.domain.errors import Reason, Refusal
from node.domain.matching import MAX_DEPTH, MAX_KEYS, MAX_VALUE_CHARS, MAX_VALUES, Rules

MAX_OFFSET = 10_000_000
MAX_CURSOR_CHARS = 100

_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_SWITCHES = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_PAGING = ("limit", "offset", "after")


@dataclass(slots=True)
class Request:
    """What the parameters say.

    `keys`: values by path of tags; a key without a value asks for the attribute only. `after` is ours:
    the place behind which the page begins (see `node.services.search`). `limit` None: not given.
    """

    keys: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    include: list[str] = field(default_factory=list)
    include_all: bool = False
    fuzzy: bool = False
    rules: Rules = field(default_factory=Rules)
    limit: int | None = None
    offset: int = 0
    after: str | None = None


def parse(parameters: Sequence[tuple[str, str]]) -> Request:
    """Read the parameters; Refusal(INVALID_QUERY) names the one that is wrong.

    Combined date-time matching always applies (PS3.18 section 8.3.4.1.1).
    """
    if len(parameters) > MAX_KEYS:
        raise Refusal(Reason.INVALID_QUERY, f"more than {MAX_KEYS} parameters")
    request = Request()
    single: dict[str, str] = {}
    for name, value in parameters:
        if not name and not value:  # "?&…", as some clients write
            continue
        if name == "includefield":
            _include(request, value)
        elif name in _SWITCHES or name in _PAGING:
            if name in single:
                raise _wrong(name, "given twice")
            single[name] = value
        else:
            _key(request, name, value)
    switches = {name: _switch(name, single.get(name, "false")) for name in _SWITCHES}
    request.fuzzy = switches["fuzzymatching"]
    request.rules = Rules(
        combined=True, empty=switches["emptyvaluematching"], multiple=switches["multiplevaluematching"]
    )
    if "limit" in single:
        request.limit = _unsigned("limit", single["limit"])
    request.offset = _unsigned("offset", single.get("offset", "0"))
    request.after = single.get("after")
    if request.offset > MAX_OFFSET:
        raise _wrong("offset", f"more than {MAX_OFFSET}")
    if request.after is not None and len(request.after) > MAX_CURSOR_CHARS:
        raise _wrong("after", "not a place in the results")
    return request


def _include(request: Request, value: str) -> None:
    for name in value.split(","):
        if name == "all":
            request.include_all = True
        elif name:
            request.include.append(_path("includefield", name)[0])
    if len(request.include) > MAX_VALUES:
        raise _wrong("includefield", "too many attributes")


def _key(request: Request, name: str, value: str) -> None:
    path = _path(name, name)
    vr = dictionary.vr_of(int(path[-1], 16))
    # Neither character can be part of a value of these VRs.
    values = re.split(r"[,\\]", value) if vr in ("UI", "CS") else value.split("\\")
    if vr == "UI" and value and not all(values):
        raise _wrong(".".join(path), "an empty UID in the list")
    if path in request.keys and vr != "UI":
        raise _wrong(".".join(path), "given twice")
    kept = request.keys.setdefault(path, [])
    kept.extend(values)
    if len(kept) > MAX_VALUES or len(value) > MAX_VALUE_CHARS * MAX_VALUES:
        raise _wrong(".".join(path), "too many values")


def _path(parameter: str, text: str) -> tuple[str, ...]:
    names = text.split(".")
    if len(names) > MAX_DEPTH:
        raise _wrong("parameter", "sequences nested too deep")
    path = tuple(_attribute(name) for name in names)
    if "" in path or any(dictionary.vr_of(int(tag, 16)) != "SQ" for tag in path[:-1]):
        which = parameter if parameter == "includefield" else "parameter"
        raise _wrong(which, "not an attribute that can be searched for")
    return path


def _attribute(name: str) -> str:
    """The tag of a keyword or of eight hexadecimal digits, "" if it is neither."""
    if _TAG.fullmatch(name):
        return name.upper()
    tag = dictionary.tag_of(name)
    return "" if tag is None else f"{tag:08X}"


def _switch(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise _wrong(name, "neither true nor false")
    return value == "true"


def _unsigned(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", value, re.ASCII):
        raise _wrong(name, "not an unsigned number")
    return int(value)


def _wrong(name: str, what: str) -> Refusal:
    return Refusal(Reason.INVALID_QUERY, f"{name}: {what}")
