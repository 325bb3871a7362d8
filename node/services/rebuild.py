"""Making the catalog anew from the objects alone (`stele rebuild`).

Every object tells its own story: its prefix names SOP class, instance, transfer syntax and who sent it,
its dataset everything else. Objects are taken oldest first and admitted like new arrivals, so running it
twice, or on a catalog that has some of the rows, does no harm. What was deleted from a catalog that still
knows of it does not come back (`node.services.orphans`).

What objects cannot know, and a rebuilt catalog therefore has not or has otherwise:

- accounts, sessions, AEs, the audit trail and its seals, leases, what was handed to the collector;
- primary keys; when rows were made and instances received (first and again); prepared metadata, which is
  made again when the series is quiet;
- an account's name beyond 16 ASCII characters as the source of an instance: the file format has an AE
  title's room for it;
- which instance's values a patient, study or series shows where its instances disagree: the oldest object's
  now, the first one to be committed before. The two differ only for instances that came within the same
  moment, or if the first one was deleted since. The same holds for which patient a study belongs to;
- of two objects with the same SOP Instance UID and different bytes, both written before either was
  committed and one left over by a crash within that moment: which one was acknowledged. The older is
  admitted, the other kept, and reported as "conflict";
- that an instance was deleted when its bytes could not be removed at once, because the store did not answer
  or there were too many, and the catalog was lost before the collector came by; or that it was deleted
  within the grace period while a crash had left a second object of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from node.domain.model import Actor
from node.services.orphans import Fate, Orphans


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of one object: "stored"; "duplicate" (its row has the same bytes elsewhere);
    "conflict" (its row has other bytes); "mismatch" (its series exists in another study); "deleted";
    "copy" (its row's own object is damaged: `stele check --repair`); "unreadable"."""

    name: str
    result: str


_RESULTS = {
    Fate.SPARE: "duplicate",
    Fate.REFUSED: "conflict",
    Fate.RIVAL: "conflict",
    Fate.SURPLUS: "deleted",
}


class Rebuild:
    """Reads every object and admits it."""

    def __init__(self, orphans: Orphans) -> None:
        self._orphans = orphans

    def run(self, actor: Actor) -> Iterator[Rebuilt]:
        """Admit every object that no row refers to, oldest first, and remove none."""
        for name, age_seconds in self._orphans.find(0):
            orphan = self._orphans.judge(name, age_seconds)
            if orphan is None:
                continue
            if orphan.fate is not Fate.UNKNOWN:
                yield Rebuilt(name, _RESULTS.get(orphan.fate, orphan.fate.value))
                continue
            admission = self._orphans.adopt(orphan, actor)
            yield Rebuilt(name, "mismatch" if admission is None else admission.value)
