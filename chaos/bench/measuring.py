"""The run; see `chaos.bench`."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from chaos.bench import embedded, figures, flood, processors
from chaos.bench.download import download
from chaos.bench.figures import ASSOCIATIONS, STUDIES, Figure
from chaos.bench.rados import RadosBench
from chaos.deployed import Deployed
from chaos.lab.host import Host
from chaos.lab.shell import LabError, wait_for
from chaos.scenario import WELL_SECONDS
from chaos.target import Dicom, Web

ROUNDS = 3
SECONDS = 8.0  # of one measurement
STUDY_INSTANCES = 100
DEGRADED_SECONDS = 120.0  # for a cluster that has lost a host to know it and serve again
MEGABYTE = 1e6


class Bench:
    """Measures a deployed cluster, each figure for so many seconds in each round; `tell` hears of it."""

    def __init__(self, cluster: Deployed, rounds: int, seconds: float, tell: Callable[[str], object]) -> None:
        self.figures: dict[str, Figure] = {}
        self._cluster = cluster
        self._rounds = rounds
        self._seconds = seconds
        self._tell = tell
        self._image = flood.ct(int(time.time()))
        self._entrance = Dicom(cluster.entrance.address, cluster.entrance.dicom_port, calling="BENCH")
        self._rados = RadosBench(cluster.on("node")[0], len(self._image.dataset), seconds)

    def run(self) -> None:
        """All of it; the cluster is whole before and after. LabError, ConnectionError."""
        self._cluster.wait_well(WELL_SECONDS)
        studies = self._studies()
        disks = Path(self._cluster.lab.record.disks)  # on the same disk as the hosts'
        with embedded.running(disks) as beside, self._rados.written(max(ASSOCIATIONS)):
            for _ in range(self._rounds):
                self._round(beside.dicom, studies)
        self._without_a_host()
        self._cluster.wait_well(WELL_SECONDS)

    # --- Rounds ----------------------------------------------------------------------------------

    def _round(self, beside: Dicom, studies: list[str]) -> None:
        for count in ASSOCIATIONS:
            self._measure(figures.intake(count), partial(self._intake, self._entrance, count))
            self._measure(figures.rados("write", count), partial(self._rados.write, count))
            self._measure(figures.embedded(count), partial(self._intake, beside, count))
        for count in STUDIES:
            self._measure(figures.studies(count), partial(self._retrieval, studies[:count]))
            self._measure(figures.rados("rand", count), partial(self._rados.rand, count))

    def _without_a_host(self) -> None:
        """One with OSDs that has neither virtual IP nor primary, if there is one: these decide how long it
        takes until clients are served again, which is not what is measured here."""
        spared = {self._cluster.holder().name, self._cluster.primary().name}
        hosts = self._cluster.on("ceph-osd")
        host = next((each for each in hosts if each.name not in spared), hosts[-1])
        host.power_off()
        self._tell(f"{host.name} is off")
        try:
            wait_for(lambda: self._settled(host), DEGRADED_SECONDS, f"not settled without {host.name}")
            for _ in range(self._rounds):
                for count in ASSOCIATIONS:
                    self._measure(figures.degraded(count), partial(self._intake, self._entrance, count))
        finally:
            host.power_on()
            host.wait_ready()

    def _settled(self, host: Host) -> bool:
        """Whether everybody knows that the host is away, and who sends is served."""
        try:
            status = self._cluster.status()
        except LabError:
            return False
        nodes, ceph = status["nodes"], status["ceph"]
        if nodes is None or ceph is None or host.name in [node["name"] for node in nodes]:
            return False
        osds = len(list((host.root / "var/lib/ceph/osd").iterdir()))
        return ceph["osds"] - ceph["osds_up"] == osds and self._serves()

    def _serves(self) -> bool:
        try:
            with self._cluster.lab.network.entered():
                return flood.send(self._entrance, self._image, max(ASSOCIATIONS), 1).failed == 0
        except ConnectionError:
            return False

    # --- Measurements ----------------------------------------------------------------------------

    def _measure(self, what: str, bytes_a_second: Callable[[], float]) -> None:
        figure = self.figures.setdefault(what, Figure(what))
        before = processors.seconds()
        figure.values.append(bytes_a_second() / MEGABYTE)
        figure.processors.append(processors.used(before, processors.seconds()))
        figure.loads.append(os.getloadavg()[0])
        self._tell(f"{what}: {figure.values[-1]:.1f} MB/s, load average {figure.loads[-1]:.1f}")

    def _intake(self, address: Dicom, associations: int) -> float:
        with self._beside(address):
            sent = flood.send(address, self._image, associations, seconds=self._seconds)
        if sent.failed:
            raise LabError(f"{address.name} refused {sent.failed} instances")
        return sent.stored * len(self._image.dataset) / sent.seconds

    def _studies(self) -> list[str]:
        with self._beside(self._entrance):
            sent = flood.send(self._entrance, self._image, max(STUDIES), STUDY_INSTANCES)
        if sent.failed:
            raise LabError(f"{sent.failed} instances were refused")
        return list(sent.studies)

    def _retrieval(self, studies: list[str]) -> float:
        entrance = self._cluster.entrance
        token = entrance.token_file.read_text().strip()
        web = Web(entrance.url, str(entrance.ca), token, server_name=entrance.server_name)
        with self._beside(self._entrance):
            got = download(web, studies)
        least = len(studies) * STUDY_INSTANCES * len(self._image.dataset)
        if got.size < least:
            raise LabError(f"the studies have {got.size} bytes, not {least}")
        return got.size / got.seconds

    @contextmanager
    def _beside(self, address: Dicom) -> Iterator[None]:
        """Where who sends there stands: on the clients' side, for the cluster."""
        if address is not self._entrance:
            yield
            return
        with self._cluster.lab.network.entered():
            yield
