"""One primary at a time: no two timelines of PostgreSQL acknowledge writes at once. Pure.

A promotion begins a timeline, and timelines are numbered upwards. A probe that one of them acknowledged took
effect between its beginning and its end, so what shows two primaries for sure is a probe that began on an
older timeline when one on a newer had already ended. A timeline belongs to the one host that began it.
"""

from collections.abc import Iterable

from chaos.model import Evidence, Probe, Violation


def one_primary(evidence: Evidence) -> Iterable[Violation]:
    """Nobody acknowledges on a timeline that has been left, or on another host's."""
    timelines: dict[int, list[Probe]] = {}
    for probe in evidence.seen.probes:
        timelines.setdefault(probe.timeline, []).append(probe)
    newer: Probe | None = None  # of all later timelines the probe that ended first
    for timeline in sorted(timelines, reverse=True):
        probes = timelines[timeline]
        if newer is not None:
            late = max(probes, key=lambda each: each.began)
            if late.began > newer.ended:
                yield Violation("one primary", _overlap(late, newer))
        hosts = sorted({each.host for each in probes})
        if len(hosts) > 1:
            yield Violation("one primary", f"timeline {timeline} acknowledged on {' and '.join(hosts)}")
        first = min(probes, key=lambda each: each.ended)
        newer = first if newer is None else min(first, newer, key=lambda each: each.ended)


def _overlap(late: Probe, newer: Probe) -> str:
    seconds = late.began - newer.ended
    return (
        f"timeline {late.timeline} on {late.host} still acknowledged {seconds:.1f} s after"
        f" timeline {newer.timeline} on {newer.host} had"
    )
