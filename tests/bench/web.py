"""WADO-RS, STOW-RS and metadata beside Orthanc, over clients on plain sockets."""

import json
import multiprocessing
import multiprocessing.synchronize
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import requests

from chaos.bench import flood
from tests.bench import scu, servers
from tests.bench.http import Client
from tests.bench.report import Report, percentile
from tests.bench.servers import Server

JSON = "application/dicom+json"
PART10 = 'multipart/related; type="application/dicom"; transfer-syntax=*'
OCTETS = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
BOUNDARY = b"stele-bench-0123456789"
STOW_TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'


@dataclass(frozen=True)
class Address:
    """An image that a server has."""

    study: str
    series: str
    instances: list[str]

    @property
    def below(self) -> str:
        """The series' path."""
        return f"/studies/{self.study}/series/{self.series}"


def loaded(server: Server, image: Path, count: int) -> Address:
    """Store one image `count` times as a series of its own, and look up under which UIDs."""
    before = _uids(server, "/studies", "0020000D")
    done = scu.run(server.port, server.title, image, count, 1)
    if done["failed"]:
        raise RuntimeError(f"{server.name} refused {done['failed']} instances")
    (study,) = _uids(server, "/studies", "0020000D") - before
    (series,) = _uids(server, f"/studies/{study}/series", "0020000E")
    return Address(
        study, series, sorted(_uids(server, f"/studies/{study}/series/{series}/instances", "00080018"))
    )


def _uids(server: Server, path: str, tag: str) -> set[str]:
    answer = requests.get(f"{server.dicomweb}{path}?limit=1000", headers={"Accept": JSON}, timeout=120)
    answer.raise_for_status()
    return {each[tag]["Value"][0] for each in (json.loads(answer.content) if answer.content else [])}


def retrieval(report: Report, among: list[Server], image: Path, slices: int, times: int) -> None:
    """A study's instances, single frames of it, its metadata."""
    places = {server.name: loaded(server, image, slices) for server in among}

    def study_rate(server: Server) -> float:
        client = Client(server.dicomweb or "")
        started = time.perf_counter()
        size = client.get(f"/studies/{places[server.name].study}", PART10)
        took = time.perf_counter() - started
        client.close()
        if size < slices * image.stat().st_size * 0.9:
            raise RuntimeError(f"{server.name} sends {size} bytes only")
        return size / took / 1e6

    def frame(server: Server) -> Callable[[], object]:
        client, place = Client(server.dicomweb or ""), places[server.name]
        turn = iter(range(10**9))
        return lambda: client.get(
            f"{place.below}/instances/{place.instances[next(turn) % len(place.instances)]}/frames/1", OCTETS
        )

    def metadata(server: Server) -> Callable[[], object]:
        client = Client(server.dicomweb or "")
        return lambda: client.get(f"{places[server.name].below}/metadata", JSON)

    report.alternate(f"WADO-RS study of {slices} CT", "MB/s", study_rate, among)
    report.latencies("WADO-RS frame", frame, among, times)
    report.latencies(f"WADO-RS series metadata, {slices} instances", metadata, among, times)


# --- STOW-RS ---


def stow(report: Report, among: list[Server], images: dict[str, Path], requests_each: int) -> None:
    """Instances a second: one in each request, and fifty in each."""
    for name, in_each, clients in (("mr", 1, 1), ("mr", 1, 4), ("ct", 50, 1), ("ct", 50, 4)):
        count = max(1, requests_each // in_each // clients)

        def rate(
            server: Server,
            name: str = name,
            in_each: int = in_each,
            clients: int = clients,
            count: int = count,
        ) -> float:
            return _stored(server, images[name], in_each, clients, count)

        report.alternate(f"STOW-RS {in_each} {name.upper()} a request, ×{clients}", "inst/s", rate, among)


def _stored(server: Server, image: Path, in_each: int, clients: int, count: int) -> float:
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(clients)
    results: multiprocessing.Queue[tuple[float, float]] = context.Queue()
    posters = [
        context.Process(target=_poster, args=(server.dicomweb, image, in_each, count, ready, results))
        for _ in range(clients)
    ]
    for poster in posters:
        poster.start()
    times = [results.get(timeout=900) for _ in posters]
    for poster in posters:
        poster.join(30)
    seconds = max(end for _, end in times) - min(start for start, _ in times)
    return clients * count * in_each / seconds


def _poster(
    url: str,
    image: Path,
    in_each: int,
    count: int,
    ready: "multiprocessing.synchronize.Barrier",
    results: "multiprocessing.Queue[tuple[float, float]]",
) -> None:
    prepared = scu.prepare(image)
    whole = image.read_bytes().replace(prepared.study_uid, flood.fresh(len(prepared.study_uid)))
    whole = whole.replace(prepared.series_uid, flood.fresh(len(prepared.series_uid)))
    pieces = whole.split(prepared.instance_uid)
    client = Client(url)
    ready.wait(60)
    started = time.monotonic()
    for _ in range(count):
        body: list[bytes] = []
        for number in range(in_each):
            body.append(
                (b"\r\n" if number else b"")
                + b"--"
                + BOUNDARY
                + b"\r\nContent-Type: application/dicom\r\n\r\n"
            )
            body.append(flood.fresh(len(prepared.instance_uid)).join(pieces))
        body.append(b"\r\n--" + BOUNDARY + b"--\r\n")
        answer = json.loads(client.post("/studies", STOW_TYPE, tuple(body)))
        if len(answer["00081199"]["Value"]) != in_each:
            raise RuntimeError("not all were stored")
    results.put((started, time.monotonic()))


# --- After a restart ---


def after_restart(report: Report, image: Path, count: int) -> None:
    """A series' metadata as the first request after the server was started again. Each is asked once before,
    so that whatever it prepares is prepared."""
    names = ("orthanc", "stele")
    with ExitStack() as stack:
        folders = {name: stack.enter_context(servers.folder_for(name)) for name in names}
        places: dict[str, Address] = {}
        for name in names:
            with servers.ALL[name](folders[name]) as server:
                places[name] = loaded(server, image, count)
                Client(server.dicomweb or "").get(f"{places[name].below}/metadata", JSON)
        taken: dict[str, list[float]] = {}
        for _ in range(report.rounds):
            for name in names:
                with servers.ALL[name](folders[name]) as server:
                    client = Client(server.dicomweb or "")
                    started = time.perf_counter()
                    client.get(f"{places[name].below}/metadata", JSON)
                    taken.setdefault(server.name, []).append((time.perf_counter() - started) * 1e3)
        medians = {name: percentile(values, 0.5) for name, values in taken.items()}
        report.keep(f"metadata of {count:,} instances, first request after a restart", "ms", medians)
