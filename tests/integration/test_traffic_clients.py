"""Each client of the chaos suite notes what it was told, and "unknown" where it was told nothing."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pynetdicom.presentation import build_context

from chaos import corpus
from chaos.corpus import Sample
from chaos.history import ASSOCIATE, History, Operation, Result
from chaos.readback import Unreadable, web
from chaos.target import Dicom, Web, WebSession
from chaos.traffic import pynetdicom_scu
from chaos.traffic.programs import Programs
from chaos.traffic.racing import Racers
from chaos.traffic.reading import Reader
from chaos.traffic.sending import Sender
from chaos.traffic.storescu import storescu
from chaos.traffic.stow import stow
from tests.integration.scripted_scp import ABORT, Caller, scripted_scp
from tests.support import free_port, require, wait_until

pytestmark = pytest.mark.peers
STATUSES = (0x0000, 0xA700, 0xB000)
Send = Callable[[Dicom, list[Sample]], list[Operation]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    made = corpus.make(tmp_path_factory.mktemp("clients") / "corpus", 80, seed=1).samples
    explicit_ct = [each for each in made if (each.sop_class, each.syntax) == (corpus.CT, corpus.EXPLICIT)]
    return explicit_ct[: len(STATUSES) + 1]


def by_storescu(address: Dicom, batch: list[Sample]) -> list[Operation]:
    require("storescu")
    return list(storescu(Programs(), "client", address, batch))


def by_pynetdicom(address: Dicom, batch: list[Sample]) -> list[Operation]:
    with pynetdicom_scu.started(Programs(), "client") as process:
        return list(pynetdicom_scu.send(process, address, batch))


def ends(done: list[Operation]) -> list[tuple[str, Result]]:
    return [(each.status, each.result) for each in done]


def answer_then(last: Callable[[Caller], None]) -> Callable[[Caller], None]:
    """Give each of STATUSES once, then take one more dataset and do what `last` does."""

    def serve(caller: Caller) -> None:
        for status in STATUSES:
            context_id, received = caller.receive()
            caller.answer(context_id, received.command, status)
        caller.receive()
        last(caller)

    return serve


@pytest.mark.parametrize("send", [by_storescu, by_pynetdicom])
@pytest.mark.parametrize("abort", [True, False])
def test_an_association_lost_before_the_answer_leaves_its_store_unknown(
    samples: list[Sample], send: Send, abort: bool
) -> None:
    with scripted_scp(answer_then(lambda caller: caller.socket.sendall(ABORT) if abort else None)) as scp:
        done = send(Dicom("127.0.0.1", scp.port), samples)
    assert ends(done) == [
        ("0000", Result.OK),
        ("A700", Result.REFUSED),
        ("B000", Result.OK),
        ("association lost", Result.UNKNOWN),
    ]
    assert sorted(each.uid for each in done) == sorted(each.uid for each in samples)
    assert {each.node for each in done} == {f"127.0.0.1:{scp.port}"}
    assert all(each.invoked < each.returned for each in done)
    content = {each.uid: each.content for each in samples}
    assert all(each.content == content[each.uid] for each in done)


def test_pynetdicoms_reactor_leaves_answers_to_who_waits_for_them() -> None:
    """With a busy processor it took about one of a hundred."""
    with scripted_scp() as scp:
        contexts = [build_context(corpus.CT, corpus.EXPLICIT)]
        association = pynetdicom_scu.associate(Dicom("127.0.0.1", scp.port), 10, contexts)
        association.dimse.msg_queue.put((1, "an answer"))
        assert association.dimse.get_msg(block=False) == (None, None)
        assert association.dimse.get_msg(block=True) == (1, "an answer")
        association.release()


@pytest.mark.parametrize("send", [by_storescu, by_pynetdicom])
def test_where_no_association_comes_about_no_store_is_noted(samples: list[Sample], send: Send) -> None:
    (done,) = send(Dicom("127.0.0.1", free_port()), samples)
    assert (done.kind, done.uid, done.result) == (ASSOCIATE, "", Result.UNKNOWN)


def test_racers_note_a_lost_association_as_unknown_and_try_again(samples: list[Sample]) -> None:
    calls: list[int] = []

    def serve(caller: Caller) -> None:
        context_id, received = caller.receive()
        calls.append(caller.number)
        if len(calls) > 1:
            caller.answer(context_id, received.command)
            caller.receive()  # the release

    history = History()

    def answering(_path: str) -> bytes | int:
        return 409

    with scripted_scp(serve) as scp, web_server(answering) as (session, _):
        stop = threading.Event()
        racers = Racers(
            Sender(history, stop), [Dicom("127.0.0.1", scp.port)], [session], lambda _name, job: job()
        )
        ending = threading.Timer(2, stop.set)  # the web's part is never told anything final
        ending.start()
        racers.race(samples[:1], samples[1:2], None)
    dicom = [each for each in history.operations if each.client == "racer-dicom"]
    assert [each.result for each in dicom] == [Result.UNKNOWN, Result.OK]


# --- The web ---


@contextmanager
def web_server(answer: Callable[[str], bytes | int]) -> Iterator[tuple[WebSession, list[str]]]:
    """A session with a web server, and the error pages that it has seen.

    `answer`: from a path to DICOM JSON, to a status, or to 0 for a connection closed without a word.
    """
    pages: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            given = answer(self.path)
            if given == 0:
                self.close_connection = True
                return
            body = given if isinstance(given, bytes) else b"[]"
            self.send_response(200 if isinstance(given, bytes) else given)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass  # not to standard error

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        session = WebSession(Web(f"http://127.0.0.1:{server.server_address[1]}"), pages.append)
        try:
            yield session, pages
        finally:
            session.close()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "status", "result"),
    [
        (0, "ConnectionError", Result.UNKNOWN),
        (502, "HTTP 502", Result.UNKNOWN),
        (504, "HTTP 504", Result.UNKNOWN),
        (503, "HTTP 503", Result.REFUSED),
        (401, "HTTP 401", Result.REFUSED),
    ],
)
def test_a_request_without_a_word_on_its_instances(
    samples: list[Sample], answer: int, status: str, result: Result
) -> None:
    with web_server(lambda _path: answer) as (session, pages):
        done = stow(session, "client", samples[:2])
    assert ends(done) == [(status, result)] * 2
    assert [each.uid for each in done] == [each.uid for each in samples[:2]]
    assert len(pages) == (answer >= 400)


@pytest.mark.parametrize("answer", [0, 401, 502, 503, 504])
def test_who_does_not_answer_afterwards_has_lost_nothing(samples: list[Sample], answer: int) -> None:
    with web_server(lambda _path: answer) as (session, _):
        for read in (web.wado, web.wado_each):
            with pytest.raises(Unreadable):
                read(session, samples)
        with pytest.raises(Unreadable):
            web.qido(session)


@pytest.mark.parametrize("answer", [404, 410, 500])
def test_who_answers_without_an_instance_has_lost_it(samples: list[Sample], answer: int) -> None:
    with web_server(lambda _path: answer) as (session, _):
        assert web.wado(session, samples) == {}


def test_each_instance_of_a_request_has_its_own_status(samples: list[Sample]) -> None:
    stored, refused, untold = samples[:3]
    module = {
        "00081199": {"Value": [{"00081155": {"Value": [stored.uid]}}]},
        "00081198": {"Value": [{"00081155": {"Value": [refused.uid]}, "00081197": {"Value": [0xC111]}}]},
    }
    with web_server(lambda _path: json.dumps(module).encode()) as (session, _):
        done = stow(session, "client", [stored, refused, untold])
    assert ends(done) == [("0000", Result.OK), ("C111", Result.REFUSED), ("HTTP 200", Result.REFUSED)]


@pytest.mark.parametrize(
    ("answer", "status", "result"),
    [
        (b"[]", "0 rows", Result.REFUSED),
        (b"[{}, {}]", "2 rows", Result.REFUSED),
        (204, "0 rows", Result.REFUSED),
        (404, "404", Result.REFUSED),
        (503, "503", Result.REFUSED),
        (502, "HTTP 502", Result.UNKNOWN),
        (0, "ConnectionError", Result.UNKNOWN),
    ],
)
def test_a_reader_notes_what_it_does_not_find(answer: bytes | int, status: str, result: Result) -> None:
    history = History()
    history.add(Operation("client", "C-STORE", "1.2", "", 0.0, 1.0, Result.OK, "0000"))
    stop = threading.Event()
    with web_server(lambda _path: answer) as (session, _):
        reader = threading.Thread(target=Reader("reader", session, history, 1).read, args=(50.0, stop))
        reader.start()
        try:
            wait_until(lambda: len(history.operations) > 1, 10, "a read")
        finally:
            stop.set()
            reader.join()
    done = history.operations[1]
    assert (done.kind, done.uid, done.status, done.result) == ("QIDO-RS", "1.2", status, result)
    assert done.node == session.web.url
