"""All four services through all addresses, and the result on disk."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from chaos.corpus import Instance
from chaos.model import Listing, Seen
from chaos.readback import Unreadable, dimse, web
from chaos.target import Dicom, Web, WebSession

_SEEN = TypeAdapter(Seen)
Result = TypeVar("Result")


def read_everything(
    dicom: Sequence[Dicom],
    webs: Sequence[Web],
    instances: Sequence[Instance],
    pages: Callable[[str], None],
    patients: Sequence[str] = ("",),
) -> Seen:
    """List and retrieve `instances` through every address, one after the other, DIMSE beside HTTP.

    `patients`: what the IDs of the patients to list begin with. `pages` gets bodies of error answers.
    """
    seen = Seen()

    def through_dicom() -> None:
        for address in dicom:
            found, got = f"C-FIND at {address.name}", f"C-GET at {address.name}"
            _noted(seen.listings, found, partial(_find, address, patients), seen)
            _noted(seen.retrieved, got, partial(dimse.c_get, address, instances), seen)

    def through_web() -> None:
        for each in webs:
            session = WebSession(each, pages)
            found, got = f"QIDO-RS at {each.url}", f"WADO-RS at {each.url}"
            _noted(seen.listings, found, partial(_qido, session, patients), seen)
            _noted(seen.retrieved, got, partial(web.wado, session, instances), seen)
            session.close()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(through_dicom), pool.submit(through_web)]:
            done.result()
    return seen


def save(seen: Seen, path: Path) -> None:
    """Write it as JSON."""
    path.write_bytes(_SEEN.dump_json(seen))


def load(path: Path) -> Seen:
    """The inverse of `save`. ValueError if the file holds something else."""
    return _SEEN.validate_json(path.read_bytes())


def _noted(into: dict[str, Result], name: str, read: Callable[[], Result], seen: Seen) -> None:
    try:
        into[name] = read()
    except Unreadable as error:
        seen.unread.append(f"{name}: {error}")


def _find(address: Dicom, patients: Sequence[str]) -> Listing:
    return _joined([dimse.c_find(address, each) for each in patients])


def _qido(session: WebSession, patients: Sequence[str]) -> Listing:
    return _joined([web.qido(session, each) for each in patients])


def _joined(listings: list[Listing]) -> Listing:
    whole = Listing()
    for each in listings:
        whole.patients += each.patients
        whole.studies += each.studies
        whole.series += each.series
        whole.instances += each.instances
    return whole
