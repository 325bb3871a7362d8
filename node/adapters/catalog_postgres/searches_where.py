"""Matches as SQL conditions (PS3.4 section C.2.2.2).

SQL text is made of constants and of tags, which are eight hexadecimal digits; every value of a request
travels as a parameter. Tables are known by one letter: p(atients), s(tudies), e (series), i(nstances).

What is often searched for has a column; everything else is looked up in the level's `attributes`, with
the meaning that `node.domain.matching.holds` spells out in Python. Text comparison is by code point
(COLLATE "C"), whatever the database's own collation is.
"""

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from psycopg import sql

from node.domain import names
from node.domain.matching import NUMBER_VRS
from node.domain.model import Level
from node.domain.query import MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY, Kind, Match
from node.domain.vr import SINGLE_TEXT

TABLE_OF = {Level.PATIENT: "p", Level.STUDY: "s", Level.SERIES: "e", Level.IMAGE: "i"}
PATIENT_NAME, PATIENT_ID = "00100010", "00100020"
STUDY_DATE, STUDY_TIME = "00080020", "00080030"

# Columns of plain text
_TEXT = {
    PATIENT_ID: ("p", "patient_id"),
    "00100021": ("p", "issuer"),
    "00100030": ("p", "birth_date"),
    "00100040": ("p", "sex"),
    STUDY_DATE: ("s", "study_date"),
    "0020000D": ("s", "study_uid"),
    "00080050": ("s", "accession_number"),
    "00200010": ("s", "study_id"),
    "0020000E": ("e", "series_uid"),
    "00080060": ("e", "modality"),
    "00080018": ("i", "sop_instance_uid"),
    "00080016": ("i", "sop_class_uid"),
}
_DESCRIPTION = "00081030"  # its column is normalised: matched without regard to case and accents
# Columns of normalised names, component groups joined by "="
_NAMES = {PATIENT_NAME: ("p", "name"), "00080090": ("s", "referring_physician")}
_NUMBERS = {"00200011": ("e", "series_number"), "00200013": ("i", "instance_number")}
_LISTS = {MODALITIES_IN_STUDY: ("series", "modality"), SOP_CLASSES_IN_STUDY: ("instances", "sop_class_uid")}

_LARGEST = 2**63 - 1
# What NFKD leaves beside the letters: accents, points and marks of many scripts, but not kana's voicing
_MARKS = "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u200b-\u200f]+"
# Letters that NFKD leaves whole (see `node.domain.names`), by what a searcher types instead
_SPELLINGS = {
    **{"ae": "æ", "oe": "œ", "th": "þ", "ss": "ß"},
    **{"o": "ø", "l": "ł", "d": "đð", "h": "ħ", "i": "ı", "t": "ŧ"},
}
_PARTS = re.compile("ae|oe|th|ss|.", re.DOTALL)
_SPECIAL = {"*": ".*", "?": ".", "^": r" *\^ *", " ": " +"}


@dataclass(slots=True)
class Condition:
    """SQL text with placeholders, their parameters, and the tables it speaks of."""

    text: sql.Composable
    parameters: list[Any] = field(default_factory=list)
    tables: frozenset[str] = frozenset()


def condition(text: str, /, *parameters: Any, tables: str = "", **parts: sql.Composable) -> Condition:
    """A condition from constant text; `parts` fill its {braces}."""
    return Condition(sql.SQL(text).format(**parts), list(parameters), frozenset(tables))


def all_of(conditions: Sequence[Condition]) -> Condition:
    """The conjunction, TRUE if there is none."""
    return _joined(conditions, " AND ") if conditions else condition("TRUE")


def any_of(conditions: Sequence[Condition]) -> Condition:
    """The disjunction of at least one condition."""
    return conditions[0] if len(conditions) == 1 else _joined(conditions, " OR ")


def _joined(conditions: Sequence[Condition], word: str) -> Condition:
    text = sql.SQL("({})").format(sql.SQL(word).join(one.text for one in conditions))
    parameters = [value for one in conditions for value in one.parameters]
    return Condition(text, parameters, frozenset().union(*(one.tables for one in conditions)))


def conditions(
    matches: Iterable[Match], level_of: Mapping[str, Level], indexed: Container[str]
) -> list[Condition]:
    """One condition for each match or sequence. `indexed`: tags for which `searches_extra` has indexes."""
    matches = list(matches)
    found = []
    for tag in dict.fromkeys(match.path[0] for match in matches if len(match.path) > 1):
        table = TABLE_OF[level_of[tag]]
        inner = [match for match in matches if match.path[0] == tag]
        found.append(_in_json(inner, sql.Identifier(table, "attributes"), table))
    for match in matches:
        if len(match.path) == 1:
            found.append(_on_column(match, level_of) or _on_attribute(match, level_of, indexed))
    return found


def _on_column(match: Match, level_of: Mapping[str, Level]) -> Condition | None:
    """The condition on what has a column or is computed, None for the rest."""
    tag = match.path[0]
    if tag in _LISTS:
        return _in_study(match)
    if match.time:
        return _moment(match, level_of)
    if tag == STUDY_TIME:
        time = sql.Identifier("s", "study_time")
        if match.kind is Kind.EMPTY:
            return _text(match, time, "s")
        return all_of(
            [condition("{time} <> ''", tables="s", time=time), _text(match, padded_time(time), "s")]
        )
    if tag == _DESCRIPTION:
        key = Match(match.path, match.kind, tuple(names.normalise(value) for value in match.values), match.vr)
        return _text(key, sql.Identifier("s", "description"), "s")
    if tag in _TEXT:
        table, column = _TEXT[tag]
        return _text(match, sql.Identifier(table, column), table)
    if tag in _NAMES:
        return any_of(name_conditions(match))
    if tag in _NUMBERS and match.kind is not Kind.EMPTY:
        table, column = _NUMBERS[tag]
        numbers = [Decimal(value) for value in match.values]
        whole = [int(number) for number in numbers if number == number.to_integral_value()]
        kept = [number for number in whole if abs(number) <= _LARGEST]
        return condition("{column} = ANY(%s)", kept, tables=table, column=sql.Identifier(table, column))
    return None


def _on_attribute(match: Match, level_of: Mapping[str, Level], indexed: Container[str]) -> Condition:
    tag = match.path[0]
    table = TABLE_OF[level_of[tag]]
    found = _in_json([match], sql.Identifier(table, "attributes"), table)
    narrower = _by_index(match, table) if tag in indexed else None
    return all_of([narrower, found]) if narrower else found


# --- Columns ---


def like(pattern: str) -> str:
    """A pattern of DICOM (* and ?) as one of LIKE; what LIKE itself would treat specially is escaped."""
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return escaped.replace("*", "%").replace("?", "_")


def padded_time(text: sql.Composable) -> sql.Composed:
    """A time with its missing minutes and seconds as zeros, so that it compares as text."""
    return sql.SQL("({0} || substr('000000', length({0}) + 1))").format(text)


def _text(match: Match, text: sql.Composable, tables: str) -> Condition:
    """A comparison of a text expression, which is empty where there is no value."""
    parts = {"text": text}
    if match.kind is Kind.EMPTY:
        return condition("{text} = ''", tables=tables, **parts)
    if match.kind is Kind.WILDCARD:
        return condition("{text} LIKE %s", like(match.values[0]), tables=tables, **parts)
    if match.kind in (Kind.RANGE, Kind.UNIT):
        return all_of(_bounds(match.values, text, tables))
    if match.kind is Kind.ALL:
        return all_of([condition("{text} = %s", value, tables=tables, **parts) for value in match.values])
    if len(match.values) == 1:
        return condition("{text} = %s", match.values[0], tables=tables, **parts)
    return condition("{text} = ANY(%s)", list(match.values), tables=tables, **parts)


def _bounds(values: Sequence[str], text: sql.Composable, tables: str) -> list[Condition]:
    low, high = values
    found = [condition('{text} COLLATE "C" >= %s', low or "0", tables=tables, text=text)]
    if high:
        found.append(condition('{text} COLLATE "C" <= %s', high, tables=tables, text=text))
    return found


def _in_study(match: Match) -> Condition:
    """ModalitiesInStudy and SOPClassesInStudy (PS3.4 section C.3.4)."""
    table, column = _LISTS[match.path[0]]
    exists = "EXISTS (SELECT FROM {table} x WHERE x.study_pk = s.study_pk AND {inner})"
    value = sql.Identifier("x", column)
    if match.kind is Kind.EMPTY:
        inner = condition("{value} <> ''", value=value)
        return _wrapped("NOT " + exists, inner, "s", table=sql.Identifier(table))
    parts = match.values if match.kind is Kind.ALL else [None]
    found = []
    for part in parts:
        one = match if part is None else Match(match.path, Kind.SINGLE, (part,), match.vr)
        found.append(_wrapped(exists, _text(one, value, ""), "s", table=sql.Identifier(table)))
    return all_of(found)


def _wrapped(text: str, inner: Condition, tables: str, **parts: sql.Composable) -> Condition:
    composed = sql.SQL(text).format(inner=inner.text, **parts)
    return Condition(composed, inner.parameters, inner.tables | frozenset(tables))


def _moment(match: Match, level_of: Mapping[str, Level]) -> Condition:
    """Date and time compared as one."""
    tag, time = match.path[0], match.time or ""
    table = TABLE_OF[level_of[tag]]
    if tag == STUDY_DATE:
        day: sql.Composable = sql.Identifier("s", "study_date")
        hour: sql.Composable = sql.Identifier("s", "study_time")
    else:
        day = sql.SQL("replace({}, '.', '')").format(_first(table, tag))
        hour = sql.SQL("replace(coalesce({}, ''), ':', '')").format(_first(table, time))
    moment = sql.SQL("({} || {})").format(day, padded_time(hour))
    low, high = match.values
    days = _bounds((low[:8], high[:8]), day, table)
    return all_of(
        [*days, condition("{day} <> ''", tables=table, day=day), *_bounds(match.values, moment, table)]
    )


def _first(table: str, tag: str) -> sql.Composed:
    return sql.SQL("({}->{}->'Value'->>0)").format(sql.Identifier(table, "attributes"), sql.Literal(tag))


# --- Names ---


def name_conditions(match: Match, *, fuzzy: bool = False, in_studies: bool = False) -> list[Condition]:
    """Alternatives for a name in a column: any of them is enough, each can use an index of its own.

    A key without "=" may match in any component group; with it, each group given must match its own.
    `in_studies`: on the patient's name that each study carries.
    """
    table, column = ("s", "patient_name") if in_studies else _NAMES[match.path[0]]
    whole = sql.Identifier(table, column)
    if match.kind is Kind.EMPTY:
        return [condition("{text} = ''", tables=table, text=whole)]
    if match.kind is Kind.ALL:  # a name has one value
        each = [any_of(_name(value, wild=False, table=table, whole=whole)) for value in match.values]
        return [all_of(each)]
    wild = match.kind is Kind.WILDCARD
    found = [one for value in match.values for one in _name(value, wild=wild, table=table, whole=whole)]
    if fuzzy:
        for value in match.values:
            codes = names.phonetic(value.replace("*", "").replace("?", ""))
            if codes:
                found.append(condition("p.name_sounds @> %s::text[]", list(codes), tables="p"))
    return found


def _name(value: str, *, wild: bool, table: str, whole: sql.Composable) -> list[Condition]:
    keys = names.search_text(value).split("=")[:3]
    if "=" in value:
        given = [(number, key) for number, key in enumerate(keys, 1) if key.strip("*")]
        return [all_of([_group(number, key, wild, table, whole) for number, key in given])]
    groups = [_group(number, keys[0], wild, table, whole) for number in (1, 2, 3)]
    if table != "p" or (wild and keys[0][:1] in ("*", "?")):  # one look at the whole name for all groups
        infix = condition("{whole} LIKE %s", f"%{like(keys[0])}%", tables=table, whole=whole)
        return [all_of([infix, any_of(groups)])]
    # The first group begins where the name begins.
    prefix = condition("{whole} LIKE %s", f"{like(keys[0])}%", tables=table, whole=whole)
    return [all_of([prefix, groups[0]]), *groups[1:]]


def _group(number: int, key: str, wild: bool, table: str, whole: sql.Composable) -> Condition:
    """A comparison of one component group; `<> ''` lets partial indexes be used."""
    group = sql.SQL("split_part({}, '=', {})").format(whole, sql.Literal(number))
    if wild and ("*" in key or "?" in key):
        return condition("({group} LIKE %s AND {group} <> '')", like(key), tables=table, group=group)
    return condition("({group} = %s AND {group} <> '')", key, tables=table, group=group)


# --- Attributes ---


def _in_json(matches: Sequence[Match], node: sql.Composable, table: str, depth: int = 0) -> Condition:
    """Matches that share the first tag, below a JSON object: in one item, or on the attribute itself."""
    tag = matches[0].path[0]
    values = sql.SQL("jsonb_path_query({}, {})").format(node, sql.Literal(f'$."{tag}".Value[*]'))
    if len(matches[0].path) == 1:
        return all_of([_of_values(match, values, table) for match in matches])
    item = sql.Identifier(f"item{depth}")
    inner = [
        Match(match.path[1:], match.kind, match.values, match.vr, match.time)
        for match in matches
        if len(match.path) > 1
    ]
    tags = dict.fromkeys(match.path[0] for match in inner)
    found = [
        _in_json([match for match in inner if match.path[0] == one], item, table, depth + 1) for one in tags
    ]
    text = "EXISTS (SELECT FROM {values} AS {item} WHERE {inner})"
    return _wrapped(text, all_of(found), table, values=values, item=item)


def _of_values(match: Match, values: sql.Composable, table: str) -> Condition:
    exists = "EXISTS (SELECT FROM {values} AS v WHERE {inner})"
    if match.kind is Kind.EMPTY:
        inner = condition("v #>> '{{}}' NOT IN ('', '{{}}')")
        return _wrapped("NOT " + exists, inner, table, values=values)
    if match.kind is Kind.ALL:
        each = [Match(match.path, Kind.SINGLE, (value,), match.vr) for value in match.values]
        return all_of([_of_values(one, values, table) for one in each])
    return _wrapped(exists, _of_value(match), table, values=values)


def _of_value(match: Match) -> Condition:
    """A comparison of `v`, one value in JSON."""
    text: sql.Composable = sql.SQL("btrim(v #>> '{}', ' ')")
    if match.vr == "PN":
        return any_of([_person(value) for value in match.values])
    if match.vr in NUMBER_VRS:
        number = "CASE WHEN v #>> '{{}}' ~ '^[-+]?[0-9]*[.]?[0-9]+([eE][-+]?[0-9]{{1,3}})?$'"
        number += " THEN (v #>> '{{}}')::numeric END = ANY(%s)"
        return condition(number, [Decimal(value) for value in match.values])
    if match.vr == "DA":
        text = sql.SQL("replace({}, '.', '')").format(text)
    elif match.vr == "TM":
        text = padded_time(sql.SQL("replace({}, ':', '')").format(text))
    elif match.vr == "DT":
        bare = sql.SQL("regexp_replace({}, '[+-].*$', '')").format(text)
        text = sql.SQL("({0} || substr('00010101000000', length({0}) + 1))").format(bare)
    return _text(match, text, "")


def _person(value: str) -> Condition:
    """A name kept as JSON, compared by regular expressions that know cases and spellings."""
    fold = "normalize(regexp_replace(normalize(coalesce(v->>{group}, ''), NFKD), %s, '', 'g'), NFC) ~ %s"
    keys = names.search_text(value).split("=")[:3]
    wanted = list(zip(("Alphabetic", "Ideographic", "Phonetic"), keys, strict=False))
    if "=" not in value:
        wanted = [(group, keys[0]) for group in ("Alphabetic", "Ideographic", "Phonetic")]
    found = [
        condition(fold, _MARKS, _expression(key), group=sql.Literal(group))
        for group, key in wanted
        if key.strip("*")
    ]
    if not found:
        return condition("TRUE")
    return all_of(found) if "=" in value else any_of(found)


def _expression(key: str) -> str:
    """A normalised name with wildcards as a regular expression of PostgreSQL."""
    return "^ *" + "".join(_one_of(part) for part in _PARTS.findall(key)) + "[ ^]*$"


def _one_of(part: str) -> str:
    """The ways to write one or two letters that `node.domain.names.normalise` makes the same."""
    if part in _SPECIAL:
        return _SPECIAL[part]
    written = (part, *_SPELLINGS.get(part, ""))
    forms = dict.fromkeys(form for text in written for form in (text, text.upper(), text.title()))
    return f"(?:{'|'.join(re.escape(form) for form in forms)})"


# --- Indexes on attributes (see searches_extra) ---

TRIGRAM_VRS = frozenset({"AE", "AS", "CS", "LO", "LT", "SH", "ST", "UC", "UI", "UR", "UT"})


def indexed_text(attributes: sql.Composable, tag: str) -> sql.Composed:
    """What a text attribute's index is on: its values as the text of a JSON array."""
    return sql.SQL("({}->{}->>'Value')").format(attributes, sql.Literal(tag))


def _by_index(match: Match, table: str) -> Condition | None:
    """What must hold of the array's text if a value matches, so that the index narrows the search."""
    if match.kind not in (Kind.SINGLE, Kind.WILDCARD):
        return None
    text = indexed_text(sql.Identifier(table, "attributes"), match.path[0])
    value = match.values[0]
    if match.vr in NUMBER_VRS:
        values = sql.SQL("({}->{}->'Value')").format(
            sql.Identifier(table, "attributes"), sql.Literal(match.path[0])
        )
        return condition("{values} @> %s::jsonb", f"[{value}]", tables=table, values=values)
    if match.vr not in TRIGRAM_VRS or not value.isprintable():
        return None
    quoted = json.dumps(value, ensure_ascii=False)
    if match.vr in SINGLE_TEXT:  # may have spaces in front
        quoted = quoted[1:-1]
    return condition("{text} LIKE %s", f"%{like(quoted)}%", tables=table, text=text)
