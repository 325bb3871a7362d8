"""The upper layer's bytes, without a wire."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from node.domain import proxy
from tests.integration.dimse_peer import EXPLICIT, IMPLICIT, VERIFICATION, context, p_data, request

REQUEST = request(
    context(1, VERIFICATION, IMPLICIT, EXPLICIT), context(3, "1.2.3", EXPLICIT), calling="MODALITY"
)


def test_a_request_is_understood() -> None:
    parsed = pdu.parse_request(REQUEST[6:])
    assert (parsed.called, parsed.calling, parsed.max_length) == ("STELE", "MODALITY", 65536)
    assert parsed.proposals == (
        pdu.Proposal(1, VERIFICATION, (IMPLICIT, EXPLICIT)),
        pdu.Proposal(3, "1.2.3", (EXPLICIT,)),
    )


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        pdu.parse_request(data)
    except (pdu.Broken, pdu.Rejected):
        pass


@given(st.integers(0, len(REQUEST) - 7), st.integers(0, 255))
def test_a_request_with_one_other_byte_is_a_request_or_refused(at: int, value: int) -> None:
    body = bytearray(REQUEST[6:])
    body[at] = value
    try:
        pdu.parse_request(bytes(body))
    except (pdu.Broken, pdu.Rejected):
        pass


@given(st.binary(max_size=100))
def test_any_bytes_are_fragments_or_broken(data: bytes) -> None:
    try:
        found = pdu.fragments(memoryview(data))
    except pdu.Broken:
        return
    assert sum(6 + len(each.data) for each in found) == len(data)


def test_fragments_are_told_apart() -> None:
    body = p_data(1, 3, b"ab")[6:] + p_data(5, 0, b"cdef")[6:]
    command, data = pdu.fragments(memoryview(body))
    assert (command.context_id, command.is_command, command.is_last, bytes(command.data)) == (
        1,
        True,
        True,
        b"ab",
    )
    assert (data.context_id, data.is_command, data.is_last, bytes(data.data)) == (5, False, False, b"cdef")


NUMBER = st.integers(0, 0xFFFF)
UID = st.from_regex(r"[1-9](\.[1-9][0-9]{0,5}){0,8}", fullmatch=True)


@given(NUMBER, UID, NUMBER, NUMBER, UID, st.text("ABC _19", min_size=1, max_size=16))
def test_a_command_comes_back(
    field: int, class_uid: str, number: int, status: int, uid: str, title: str
) -> None:
    command = Command(
        field,
        class_uid=class_uid,
        message_id=number,
        status=status,
        instance_uid=uid,
        destination=title.strip() or None,
        remaining=number,
    )
    assert commands.decode(commands.encode(command)) == command


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_broken(data: bytes) -> None:
    try:
        commands.decode(data)
    except pdu.Broken:
        pass


class TestProxy:
    HEADER = proxy.SIGNATURE + b"\x21\x11\0\x0c"
    BODY = bytes((192, 0, 2, 7, 198, 51, 100, 1)) + struct.pack(">HH", 50000, 104)

    def test_ipv4(self) -> None:
        assert proxy.body_length(self.HEADER) == 12
        assert proxy.source(self.HEADER, self.BODY) == "192.0.2.7"

    def test_ipv6_with_more_behind(self) -> None:
        header = proxy.SIGNATURE + b"\x21\x21\0\x28"
        body = bytes.fromhex("20010db8000000000000000000000001") + bytes(20) + b"\3\0\1x"
        assert proxy.source(header, body) == "2001:db8::1"

    def test_a_health_check_names_nobody(self) -> None:
        assert proxy.source(proxy.SIGNATURE + b"\x20\0\0\0", b"") is None

    @pytest.mark.parametrize(
        "header",
        [
            b"PROXY TCP4 192.0",
            proxy.SIGNATURE + b"\x11\x11\0\x0c",
            proxy.SIGNATURE + b"\x22\x11\0\x0c",
            proxy.SIGNATURE + b"\x21\x11\xff\xff",
            proxy.SIGNATURE,
        ],
    )
    def test_what_is_no_header(self, header: bytes) -> None:
        with pytest.raises(proxy.NotProxy):
            proxy.body_length(header)

    def test_addresses_cut_short(self) -> None:
        with pytest.raises(proxy.NotProxy):
            proxy.source(proxy.SIGNATURE + b"\x21\x11\0\x04", bytes(4))

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            (b"\xe1\0\x40" + b"AB" * 32, "ab" * 32),
            (b"\x20\0\x02xy\xe1\0\x40" + b"0f" * 32 + b"\x04\0\0", "0f" * 32),
            (b"", None),
            (b"\xe1\0\0", None),
            (b"\xe1\0\x40" + b"zz" * 32, None),
            (b"\xe1\0\x40" + b"0f" * 31, None),
            (b"\xe2\0\x40" + b"0f" * 32, None),
            (b"\x20\xff\xffxy\xe1\0\x40" + b"0f" * 32, None),
        ],
    )
    def test_the_certificate_that_the_proxy_saw(self, more: bytes, told: str | None) -> None:
        assert proxy.certificate(self.HEADER, self.BODY + more) == told
        ipv6 = proxy.SIGNATURE + b"\x21\x21\0\x24"
        assert proxy.certificate(ipv6, bytes(36) + more) == told

    @given(st.binary(min_size=16, max_size=16), st.binary(max_size=64))
    def test_any_bytes_are_a_header_or_not(self, header: bytes, body: bytes) -> None:
        for head in (header, proxy.SIGNATURE + header[12:]):
            try:
                proxy.source(head, body)
            except proxy.NotProxy:
                pass
            proxy.certificate(head, body)
