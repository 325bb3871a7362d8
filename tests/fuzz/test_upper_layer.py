"""PDUs, command sets and identifiers as bytes: understood, Broken, Rejected, and nothing else."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from tests.fuzz.effort import examples
from tests.fuzz.test_datasets import CHANGES, Changes, changed
from tests.integration.dimse_peer import EXPLICIT, IMPLICIT, VERIFICATION, context, p_data, request

REQUEST = request(
    context(1, VERIFICATION, IMPLICIT, EXPLICIT),
    context(3, "1.2.840.10008.5.1.4.1.1.2", EXPLICIT),
    calling="MODALITY",
    more=b"\x54\0\0\x1d" + struct.pack(">H", 25) + b"1.2.840.10008.5.1.4.1.1.2" + b"\1\1",
)
COMMAND = commands.encode(
    Command(commands.C_STORE_RQ, class_uid="1.2.3", message_id=1, priority=0, dataset_type=0,
    instance_uid="1.2.3.4")
)  # fmt: skip


@examples(600)
@given(CHANGES)
def test_changed_requests(changes: Changes) -> None:
    """What comes out is what may be answered: titles that fit, contexts with odd IDs, each once."""
    try:
        found = pdu.parse_request(changed(REQUEST[6:], changes))
    except (pdu.Broken, pdu.Rejected):
        return
    assert 1 <= len(found.called) <= 16
    assert 1 <= len(found.calling) <= 16
    numbers = [each.context_id for each in found.proposals]
    assert len(set(numbers)) == len(numbers)
    assert all(number & 1 for number in numbers)
    assert found.max_length == 0 or found.max_length >= 16


@examples(400)
@given(CHANGES, st.lists(st.binary(max_size=30), max_size=4))
def test_changed_data(changes: Changes, values: list[bytes]) -> None:
    """All bytes of a P-DATA-TF are in its fragments, or it is Broken."""
    body = b"".join(p_data(1 + 2 * number, 3, value)[6:] for number, value in enumerate(values))
    for data in (body, changed(body, changes)):
        try:
            found = pdu.fragments(memoryview(data))
        except pdu.Broken:
            continue
        assert sum(6 + len(each.data) for each in found) == len(data)


@examples(600)
@given(CHANGES)
def test_changed_commands(changes: Changes) -> None:
    """A command that can be answered, or Broken."""
    try:
        found = commands.decode(changed(COMMAND, changes))
    except pdu.Broken:
        return
    assert 0 <= found.field <= 0xFFFF
    answer = Command(0x8001, class_uid=found.class_uid, responded_id=found.message_id, status=0, comment="x")
    assert commands.decode(commands.encode(answer)).status == 0
