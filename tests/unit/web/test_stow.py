"""What a sender is told of its instances (PS3.18 sections 10.5.3 and I.1)."""

from datetime import UTC, datetime

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.model import Admission, StoredInstance, StoredObject
from node.services.ingest import Outcome
from node.web.stow import Failed, Report, response_module, status_of

BASE = "https://archive.example"


def stored(study: str = "1.2", instance: str = "1.2.4") -> Outcome:
    content = StoredObject("name", 1, 1, b"")
    row = StoredInstance("1.1", instance, "1.2.840", study, "1.2.3", content, datetime.now(UTC))
    return Outcome(row, Admission.STORED)


def failed(reason: Reason, class_uid: str = "1.1", instance_uid: str = "1.9") -> Failed:
    return Failed(Refusal(reason, "why"), class_uid, instance_uid)


def report(*results: Outcome | Failed) -> Report:
    made = Report()
    for result in results:
        made.note(result)
    return made


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([stored()], 200),
        ([stored(), failed(Reason.CONFLICT)], 202),
        ([stored(), failed(Reason.STORE_FULL)], 202),
        ([failed(Reason.CONFLICT)], 409),
        ([failed(Reason.NOT_UNDERSTOOD)], 409),
        ([failed(Reason.MISMATCH), failed(Reason.TOO_LARGE)], 409),
        ([failed(Reason.TOO_LARGE)] * 2, 413),
        ([failed(Reason.STORE_FULL)] * 2, 507),
        ([failed(Reason.UNAVAILABLE)], 503),
    ],
)
def test_status(results: list[Outcome | Failed], code: int) -> None:
    assert status_of(report(*results)) == code


@pytest.mark.parametrize("reason", Reason)
def test_only_catalog_and_store_make_trying_on_hopeless(reason: Reason) -> None:
    made = report(failed(Reason.CONFLICT), failed(reason), failed(Reason.STORE_FULL))
    expected = reason if reason is Reason.UNAVAILABLE else Reason.STORE_FULL
    assert made.hopeless is not None
    assert made.hopeless.reason is expected
    assert (report(failed(reason)).hopeless is None) is (
        reason not in (Reason.UNAVAILABLE, Reason.STORE_FULL)
    )


def test_all_stored() -> None:
    assert response_module(report(stored()), BASE) == {
        "00081190": {"vr": "UR", "Value": [f"{BASE}/dicom-web/studies/1.2"]},
        "00081199": {
            "vr": "SQ",
            "Value": [
                {
                    "00081150": {"vr": "UI", "Value": ["1.1"]},
                    "00081155": {"vr": "UI", "Value": ["1.2.4"]},
                    "00081190": {
                        "vr": "UR",
                        "Value": [f"{BASE}/dicom-web/studies/1.2/series/1.2.3/instances/1.2.4"],
                    },
                }
            ],
        },
    }


def test_failures_are_told_by_their_uids_or_apart() -> None:
    module = response_module(report(failed(Reason.CONFLICT), failed(Reason.NOT_UNDERSTOOD, "", "")), BASE)
    assert list(module) == ["00081190", "00081198", "0008119A"]
    assert module["00081198"]["Value"] == [
        {
            "00000902": {"vr": "LO", "Value": ["why"]},
            "00081150": {"vr": "UI", "Value": ["1.1"]},
            "00081155": {"vr": "UI", "Value": ["1.9"]},
            "00081197": {"vr": "US", "Value": [0xC111]},
        }
    ]
    assert module["0008119A"]["Value"] == [
        {"00000902": {"vr": "LO", "Value": ["why"]}, "00081197": {"vr": "US", "Value": [0xC000]}}
    ]


def test_no_study_is_named_unless_there_is_one() -> None:
    assert response_module(report(failed(Reason.CONFLICT)), BASE)["00081190"] == {"vr": "UR"}
    two = report(stored("1.2"), stored("1.3", "1.3.4"))
    assert response_module(two, BASE)["00081190"] == {"vr": "UR"}
