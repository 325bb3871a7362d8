import pytest

from node.domain.errors import Reason, Refusal
from node.domain.uid import check_uid, new_uid


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.1", "0", "2.25.0", "1." + "2" * 62, "1.02.3"])
def test_well_formed_uids_pass(uid: str) -> None:
    assert check_uid(uid) == uid


@pytest.mark.parametrize(
    "uid",
    ["", ".", "1.", ".1", "1..2", "1.2\0", "1.2 ", " 1.2", "1.2\n", "1.a", "../../x",
     "1/2", "1." + "2" * 63, "1.٣", "-1"],
)  # fmt: skip
def test_malformed_uids_are_refused(uid: str) -> None:
    with pytest.raises(Refusal) as refusal:
        check_uid(uid)
    assert refusal.value.reason is Reason.INVALID_UID


def test_new_uids_are_well_formed_and_new() -> None:
    uids = {check_uid(new_uid()) for _ in range(100)}
    assert len(uids) == 100
    assert all(uid.startswith("2.25.") for uid in uids)
