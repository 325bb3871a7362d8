"""All clients of one run, each on its share of the corpus."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chaos.corpus import IMPLICIT, Corpus, Sample
from chaos.history import History
from chaos.target import Dicom, Web, WebSession
from chaos.traffic import pynetdicom_scu, storescu, stow
from chaos.traffic.deleting import Deleter
from chaos.traffic.programs import Programs
from chaos.traffic.racing import Racers
from chaos.traffic.reading import Reader
from chaos.traffic.sending import Sender, rotated


@dataclass(frozen=True, slots=True)
class Targets:
    """Where to send to, where to read, where to race; with several the clients spread over them.

    `delete`: where somebody deletes who may; nobody does if it is None.
    """

    dicom: Sequence[Dicom]
    web: Sequence[Web]
    read: Sequence[Web]
    race_dicom: Sequence[Dicom]
    race_web: Sequence[Web]
    delete: Web | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How much: instances per second of all senders together (None: as fast as they can), instances that
    each reader looks up per second, and deletions per second."""

    rate: float | None = None
    read_rate: float = 5.0
    delete_rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Shares:
    """Who sends what of a corpus, in what order."""

    dcmtk: Sequence[Sequence[Sample]]
    pynetdicom: Sequence[Sample]
    stow: Sequence[Sample]


def shares(corpus: Corpus, seed: int) -> Shares:
    """Four tenths for DCMTK, twice two, two for pynetdicom, the others for STOW-RS; and a twentieth of
    DCMTK's by STOW-RS as well: it comes in twice, at about the same time."""
    generator = random.Random(seed)
    mixed = list(corpus.samples)
    generator.shuffle(mixed)
    # DCMTK would send Implicit VR as Explicit VR, which is its right, but not what the log says
    mixed.sort(key=lambda each: each.syntax == IMPLICIT)
    tenth = len(mixed) // 10
    dcmtk, others = mixed[: 4 * tenth], mixed[4 * tenth :]
    generator.shuffle(others)
    pynetdicom, web = others[: 2 * tenth], others[2 * tenth :]
    web = web + dcmtk[: tenth // 2]
    generator.shuffle(web)
    half = len(dcmtk) // 2
    return Shares((dcmtk[:half], dcmtk[half:]), pynetdicom, web)


@dataclass
class Traffic:
    """Clients on their way. `pages` gets bodies of error answers, which must not name patients."""

    targets: Targets
    history: History
    pages: Callable[[str], None]
    load: Load = field(default_factory=Load)
    faults: list[str] = field(default_factory=list)  # of the clients themselves

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._programs = Programs()
        self._sender = Sender(self.history, self._stop)
        self._senders: list[threading.Thread] = []
        self._readers: list[threading.Thread] = []

    # --- Life ------------------------------------------------------------------------------------

    def start(self, corpus: Corpus, seed: int) -> None:
        """Start everybody."""
        share = shares(corpus, seed)
        stores = len(share.pynetdicom) + len(share.stow) + sum(map(len, share.dcmtk)) + len(corpus.rivals)

        def rate(items: int) -> float | None:
            return None if self.load.rate is None else max(items, 1) * self.load.rate / max(stores, 1)

        jobs: list[tuple[str, Callable[[], None]]] = [
            ("pynetdicom", lambda: self._pynetdicom(share.pynetdicom, rate(len(share.pynetdicom)))),
            ("stow", lambda: self._stow(share.stow, rate(len(share.stow)))),
            ("racers", lambda: self._race(corpus, rate(len(corpus.rivals)))),
        ]
        for number, samples in enumerate(share.dcmtk):
            jobs.append((f"dcmtk-{number + 1}", self._dcmtk(number, samples, rate(len(samples)))))
        self._senders = [self._thread(*job) for job in jobs]
        self._readers = [
            self._thread(*self._reader(number, seed)) for number in range(len(self.targets.read))
        ]
        if self.targets.delete is not None:
            self._readers.append(self._thread(*self._deleter(self.targets.delete, corpus, seed)))

    @property
    def sending(self) -> bool:
        """Whether a sender still runs."""
        return any(each.is_alive() for each in self._senders)

    def wait(self, seconds: float) -> bool:
        """Until every sender has ended, or for so long; whether they have ended."""
        deadline = time.monotonic() + seconds
        for each in self._senders:
            each.join(max(0.0, deadline - time.monotonic()))
        return not self.sending

    def stop(self) -> None:
        """End everybody in order: nothing new begins, what has begun is noted; an operation's own time-out
        at the most."""
        self._stop.set()
        self._programs.stop()
        for each in self._senders:
            each.join()
        self._ended.set()
        for each in self._readers:
            each.join()

    def _thread(self, name: str, job: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(name, job), name=name)
        thread.start()
        return thread

    def _guarded(self, name: str, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - a client's own fault must not pass unseen
            self.faults.append(f"{name}: {error!r}")

    # --- Clients ---------------------------------------------------------------------------------

    def _dcmtk(self, number: int, samples: Sequence[Sample], rate: float | None) -> Callable[[], None]:
        addresses = rotated(self.targets.dicom, number)
        name = f"dcmtk-{number + 1}"
        return lambda: self._sender.send(
            samples,
            addresses,
            lambda address, left: storescu.storescu(self._programs, name, address, left),
            batch=storescu.BATCH,
            rate=rate,
        )

    def _pynetdicom(self, samples: Sequence[Sample], rate: float | None) -> None:
        name = "pynetdicom"
        with pynetdicom_scu.started(self._programs, name) as process:
            self._sender.send(
                samples,
                rotated(self.targets.dicom, 2),
                lambda address, left: pynetdicom_scu.send(process, address, left),
                batch=pynetdicom_scu.BATCH,
                rate=rate,
            )

    def _stow(self, samples: Sequence[Sample], rate: float | None) -> None:
        sessions = self._sessions(self.targets.web)
        self._sender.send(
            samples,
            sessions,
            lambda session, left: stow.stow(session, "stow", left),
            batch=stow.BATCH,
            rate=rate,
        )

    def _race(self, corpus: Corpus, rate: float | None) -> None:
        racers = Racers(
            self._sender, self.targets.race_dicom, self._sessions(self.targets.race_web), self._guarded
        )
        racers.race(corpus.originals, corpus.rivals, rate)

    def _sessions(self, webs: Sequence[Web]) -> list[WebSession]:
        return [WebSession(web, self.pages) for web in webs]

    def _reader(self, number: int, seed: int) -> tuple[str, Callable[[], None]]:
        name = f"reader-{number + 1}"
        session = WebSession(self.targets.read[number], self.pages)
        reader = Reader(name, session, self.history, seed + number)
        return name, lambda: reader.read(self.load.read_rate, self._ended)

    def _deleter(self, where: Web, corpus: Corpus, seed: int) -> tuple[str, Callable[[], None]]:
        uncontested = {each.uid: each for each in corpus.samples}
        session = WebSession(where, self.pages)
        deleter = Deleter("deleter", session, self.history, uncontested, seed)
        return "deleter", lambda: deleter.delete(self.load.delete_rate, self._ended)
