"""Helpers of the tests of `stele check` and `stele rebuild`: a real archive (objects in files, catalog on
the embedded PostgreSQL) within the process, and ways to damage it behind its back."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from pydicom.dataset import FileDataset

from node import bootstrap
from node.config import Intake, Settings
from node.domain.model import Actor, Role
from node.domain.part10 import Part10Reader, prefix
from node.services.archive import Archive
from node.services.check import Finding
from tests import corpus

SENDER = Actor("MODALITY", "192.0.2.7", "dimse", Role.TECHNOLOGIST)
OPERATOR = Actor("operator", "", "node", Role.ADMINISTRATOR)
GRACE_SECONDS = 3600.0


@dataclass
class Damaged:
    """An archive whose folder and catalog a test reaches into."""

    settings: Settings
    archive: Archive

    def store(self, image: FileDataset | bytes, sender: Actor = SENDER) -> str:
        """Take an image in as an edge would; returns its SOP Instance UID once it is acknowledged."""
        data = image if isinstance(image, bytes) else corpus.encode(image)
        reader = Part10Reader()
        dataset = bytes(reader.feed(data))
        meta = reader.finish()
        intake = self.archive.ingest.begin(
            sender,
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
        )
        intake.write(dataset)
        intake.finish()
        return meta.sop_instance_uid

    def leave(self, image: FileDataset, sender: Actor = SENDER, *, hours: float = 0) -> str:
        """Write an image's object and no row, as if a crash had come between the two; its name."""
        reader = Part10Reader()
        dataset = bytes(reader.feed(corpus.encode(image)))
        meta = reader.finish()
        writer = self.archive.objects.begin(
            prefix(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, sender.name)
        )
        writer.write(dataset)
        name = writer.finish().name
        self.age(name, hours)
        return name

    def check(
        self, *, repair: bool = False, quick: bool = False, folders: tuple[Path, ...] = ()
    ) -> list[Finding]:
        """What `stele check` finds, as values."""
        check = bootstrap.build_check(self.settings, self.archive)
        return list(check.run(read_bytes=not quick, mend=OPERATOR if repair else None, folders=folders))

    def read(self, uid: str) -> bytes:
        """An instance's dataset through the archive, checked."""
        instance = self.archive.catalog.instances.find(uid)
        assert instance is not None
        return self.archive.objects.read(instance.stored)

    def name_of(self, uid: str) -> str:
        """The name of an instance's object."""
        instance = self.archive.catalog.instances.find(uid)
        assert instance is not None
        return instance.stored.name

    def file_of(self, name: str) -> Path:
        """An object's file."""
        return self.settings.data / "objects" / name[:2] / name

    def objects(self) -> set[str]:
        """Every object's name."""
        return {name for name, _ in self.archive.objects.names()}

    def flip(self, name: str, offset: int) -> None:
        """Flip a bit of an object's file; a negative offset counts from its end."""
        content = bytearray(self.file_of(name).read_bytes())
        content[offset] ^= 0x10
        self.overwrite(name, content)

    def overwrite(self, name: str, content: bytes | bytearray) -> None:
        """Put other bytes into an object's file, which is read-only."""
        file = self.file_of(name)
        mode = file.stat().st_mode
        file.chmod(0o600)
        file.write_bytes(content)
        file.chmod(mode)

    def copy(self, name: str, new_name: str, *, hours: float = 2) -> str:
        """Another object with the same content under a name that no row knows."""
        shutil.copy(self.file_of(name), self.file_of(new_name))
        self.age(new_name, hours)
        return new_name

    def age(self, name: str, hours: float) -> None:
        """Let an object be older than it is."""
        past = time.time() - hours * 3600
        os.utime(self.file_of(name), (past, past))

    def sql(self, statement: LiteralString | bytes, *values: Any) -> list[tuple[Any, ...]]:
        """Reach into the catalog."""
        with psycopg.connect(self.settings.catalog.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def damaged(data: Path, dsn: str) -> Iterator[Damaged]:
    """An archive on a folder and a migrated database."""
    settings = Settings.model_validate(
        {"data": data, "catalog": {"dsn": dsn}, "intake": Intake(grace_seconds=GRACE_SECONDS)}
    )
    archive = bootstrap.build(settings)
    try:
        yield Damaged(settings, archive)
    finally:
        archive.close()
