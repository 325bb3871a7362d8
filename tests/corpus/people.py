"""Synthetic patients and studies, some with names in the character sets of PS3.3 C.12.1.1.2."""

import hashlib
import uuid
from dataclasses import dataclass, field

from pydicom.uid import UID

NAMESPACE = uuid.UUID("6f0c0e5a-2f0e-5b4e-9d55-0d1c4f0f5a11")


def uid(*parts: object) -> UID:
    """A UID under 2.25 that depends on `parts` alone."""
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(map(str, parts))).int}")


def number(*parts: object) -> int:
    """A 63-bit number that depends on `parts` alone, to seed a generator with."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


@dataclass(frozen=True)
class Person:
    """A patient who never lived."""

    name: str = "PHANTOM^CT"
    patient_id: str = "PHANTOM-1"
    birth_date: str = "19500101"
    sex: str = "O"
    character_set: tuple[str, ...] = ("ISO_IR 100",)


# "Test patient" in each script: the family name says test or phantom, the given name patient.
PEOPLE: dict[str, Person] = {
    "ascii": Person("PHANTOM^PLAIN", "CS-ASCII", character_set=()),
    "accents": Person("FANTÔME^Éprouvée", "CS-ACCENTS", character_set=("ISO_IR 100",)),
    "polish": Person("FANTÓM^Próbny Łącznik", "CS-POLISH", character_set=("ISO_IR 101",)),
    "cyrillic": Person("ФАНТОМ^Пациент", "CS-CYRILLIC", character_set=("ISO_IR 144",)),
    "arabic": Person("اختبار^مريض", "CS-ARABIC", character_set=("ISO_IR 127",)),
    "greek": Person("ΔΟΚΙΜΗ^Ασθενής", "CS-GREEK", character_set=("ISO_IR 126",)),
    "hebrew": Person("בדיקה^מטופל", "CS-HEBREW", character_set=("ISO_IR 138",)),
    "japanese": Person(
        "SHIKEN^KANJA=試験^患者=しけん^かんじゃ", "CS-JAPANESE", character_set=("", "ISO 2022 IR 87")
    ),
    "katakana": Person(
        "ｼｹﾝ^ｶﾝｼﾞｬ=試験^患者=しけん^かんじゃ",
        "CS-KATAKANA",
        character_set=("ISO 2022 IR 13", "ISO 2022 IR 87"),
    ),
    "korean": Person("SIHEOM^HWANJA=試驗^患者=시험^환자", "CS-KOREAN", character_set=("", "ISO 2022 IR 149")),
    "thai": Person("ทดสอบ^ผู้ป่วย", "CS-THAI", character_set=("ISO_IR 166",)),
    "chinese": Person("CESHI^HUANZHE=测试^患者", "CS-CHINESE", character_set=("GB18030",)),
    "unicode": Person("TEST^Patient=試験^患者=Δοκιμή^Тест", "CS-UNICODE", character_set=("ISO_IR 192",)),
}


@dataclass(frozen=True)
class Study:
    """A study of a person; `seed` tells studies of one person apart."""

    person: Person = field(default_factory=Person)
    seed: int = 1
    date: str = "20240102"
    time: str = "101500"
    accession: str = "A0001"
    description: str = "Phantom"
    referring: str = "REFERRER^TEST"

    @property
    def study_uid(self) -> UID:
        """Study Instance UID."""
        return uid("study", self.person.patient_id, self.seed)
