"""Rendering many: one at a time, within bounds, without what is no image or is gone."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import falcon
import falcon.testing
import pytest

from node.adapters.blobs_memory import MemoryBlobs
from node.domain import part10
from node.domain.errors import Reason, Refusal
from node.domain.header import Limits, read_header
from node.domain.model import Actor, AuditEvent, Role, Scope, StoredInstance
from node.ports import Audits, Codecs, Instances
from node.services.archive import Archive
from node.services.objects import Objects
from node.services.retrieve import Retrieve
from node.web import wado_rendered
from node.web.status import Errors
from tests import corpus

PERSON = Actor("person", "192.0.2.1", "http", Role.VIEWER)
LIMITS = Limits(max_header_bytes=1 << 20, max_depth=8, max_elements=1000, max_object_bytes=1 << 24)


FRAMES = 8  # as the catalog has it: what is rendered is counted, not looked at
PICTURE_BYTES = 64 << 10  # large enough to be sent by itself


class Catalog:
    """Instances and audit trail of `count` copies of an image under UIDs of their own."""

    def __init__(self, objects: Objects, count: int) -> None:
        (image,) = corpus.ct_series(1, size=32)
        reader = part10.Part10Reader()
        dataset = bytes(reader.feed(corpus.encode(image)))
        meta = reader.finish()
        writer = objects.begin(b"")
        writer.write(dataset)
        stored = writer.finish()
        self.packed = read_header(dataset, meta.transfer_syntax_uid, LIMITS).pack()
        self.rows = [
            StoredInstance(
                meta.sop_class_uid,
                f"1.2.3.{number}",
                meta.transfer_syntax_uid,
                "1.2",
                "1.2.3",
                stored,
                datetime.now(UTC),
                FRAMES,
            )
            for number in range(count)
        ]
        self.gone: set[str] = set()

    def select(self, scopes: Sequence[Scope], event: AuditEvent | None = None) -> list[StoredInstance]:
        return self.rows

    def headers(self, scope: Scope) -> Iterator[tuple[StoredInstance, bytes]]:
        for row in self.rows:
            if row.sop_instance_uid == scope.instance_uid and row.sop_instance_uid not in self.gone:
                yield row, self.packed

    def record(self, event: AuditEvent) -> None:
        """Nobody looks."""


class Decoder:
    """Codecs that count what they render, and decline what `declined` names by its turn."""

    def __init__(self) -> None:
        self.turns = 0
        self.declined: dict[int, Reason] = {}

    def render(self, part10: bytes, frame: int, media_type: str, **_how: Any) -> bytes:
        self.turns += 1
        if self.turns in self.declined:
            raise Refusal(self.declined[self.turns])
        return b"picture %d\n" % self.turns + bytes(PICTURE_BYTES)


class Server:
    def __init__(self, count: int) -> None:
        objects = Objects(MemoryBlobs(), 1 << 24, 1 << 22)
        self.catalog, self.decoder = Catalog(objects, count), Decoder()
        retrieve = Retrieve(
            objects,
            cast(Instances, self.catalog),
            cast(Audits, self.catalog),
            cast(Codecs, self.decoder),
        )
        app: Any = falcon.App(middleware=[self])
        Errors(lambda *_: None).install(app)
        rendered = wado_rendered.Rendered(cast(Archive, SimpleNamespace(retrieve=retrieve)))
        app.add_route("/{study}", rendered)
        app.add_route("/{study}/{series}/{instance}/{numbers}", rendered)
        self.app = app

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        req.context.actor = PERSON

    def get(self, accept: str = "*/*", path: str = "/1.2") -> falcon.testing.Result:
        return falcon.testing.simulate_get(self.app, path, headers={"Accept": accept})

    def frames(self, numbers: str, accept: str = "*/*") -> falcon.testing.Result:
        return self.get(accept, f"/1.2/1.2.3/1.2.3.0/{numbers}")

    def pictures(self) -> list[bytes]:
        answer = self.get()
        assert answer.status_code == 200
        return [line for line in answer.content.splitlines() if line.startswith(b"picture")]


def test_too_many_are_refused_before_the_first_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wado_rendered, "MAX_IMAGES", 3)
    server = Server(4)
    assert server.get().status_code == 413
    assert server.decoder.turns == 0
    assert len(Server(3).pictures()) == 3


def test_each_is_made_when_the_one_before_has_been_sent() -> None:
    server = Server(50)
    environ = falcon.testing.create_environ("/1.2")
    body = server.app(environ, lambda *_: None)
    assert server.decoder.turns == 1
    sent = 0
    for piece in body:
        assert server.decoder.turns <= sent + 1
        sent += piece.startswith(b"picture")
    assert sent == 50


def test_what_cannot_be_decoded_or_is_gone_is_left_out() -> None:
    server = Server(6)
    server.catalog.gone = {"1.2.3.0", "1.2.3.3"}
    server.decoder.declined = {1: Reason.NOT_ACCEPTABLE, 3: Reason.NOT_FOUND}
    assert server.pictures() == [b"picture 2", b"picture 4"]


def test_if_nothing_can_be_decoded_it_is_not_acceptable() -> None:
    server = Server(3)
    server.decoder.declined = dict.fromkeys(range(1, 4), Reason.NOT_ACCEPTABLE)
    assert server.get().status_code == 406


@pytest.mark.parametrize("reason", [Reason.CORRUPT, Reason.UNAVAILABLE])
def test_other_failures_break_the_answer_off(reason: Reason) -> None:
    server = Server(3)
    server.decoder.declined = {2: reason}
    body = server.app(falcon.testing.create_environ("/1.2"), lambda *_: None)
    with pytest.raises(Refusal):
        list(body)
    server = Server(3)
    server.decoder.declined = {1: reason}
    assert server.get().status_code in (500, 503)


def test_too_many_frames_are_refused_before_the_first_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wado_rendered, "MAX_IMAGES", 3)
    server = Server(1)
    assert server.frames("1,2,3,4").status_code == 413
    assert server.frames("1,9").status_code == 404
    assert server.frames("1,2", "image/png").status_code == 406
    assert server.decoder.turns == 0
    assert server.frames("1,2,3").status_code == 200


def test_a_frame_that_was_named_is_not_left_out() -> None:
    server = Server(1)
    server.decoder.declined = {1: Reason.NOT_ACCEPTABLE}
    assert server.frames("1,2").status_code == 406
    server.decoder.declined = {4: Reason.NOT_ACCEPTABLE}
    environ = falcon.testing.create_environ("/1.2/1.2.3/1.2.3.0/1,2,3,4")
    body = server.app(environ, lambda *_: None)
    with pytest.raises(Refusal):
        list(body)
