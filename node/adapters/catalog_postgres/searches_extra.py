"""Indexes for the further attributes that a site has configured to be matched (`search.*_tags`)."""

from collections.abc import Mapping, Sequence

from psycopg import sql

from node.adapters.catalog_postgres.searches_where import TRIGRAM_VRS, indexed_text
from node.domain import dictionary
from node.domain.matching import NUMBER_VRS
from node.domain.model import Level

_TABLES = {
    Level.PATIENT: "patients",
    Level.STUDY: "studies",
    Level.SERIES: "series",
    Level.IMAGE: "instances",
}


def extra_index_statements(extra_tags: Mapping[Level, Sequence[str]]) -> list[str]:
    """One CREATE INDEX CONCURRENTLY IF NOT EXISTS for each tag whose VR an index helps.

    Text gets a trigram index over all its values (single values and wildcards), numbers one over the
    values themselves. Dates, times, names and sequences are matched without one.
    """
    statements = []
    for level, tags in extra_tags.items():
        for tag in tags:
            method = _method(tag)
            if method:
                name = f"{_TABLES[level]}_extra_{tag.lower()}"
                statement = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {_TABLES[level]} {method}"
                statements.append(statement)
    return statements


def _method(tag: str) -> str | None:
    vr = dictionary.vr_of(int(tag, 16))
    attributes = sql.Identifier("attributes")
    if vr in TRIGRAM_VRS:
        return f"USING gin ({indexed_text(attributes, tag).as_string()} gin_trgm_ops)"
    if vr in NUMBER_VRS:
        return f"USING gin ((attributes->'{tag}'->'Value') jsonb_path_ops)"
    return None
