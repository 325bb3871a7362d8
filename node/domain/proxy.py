"""The PROXY protocol's second version: who really calls, told by a proxy before anything else.

Pure: bytes in, values out (haproxy.org, "The PROXY protocol", section 2.2). UNIX addresses are skipped, and
so are TLVs but for one, by which a proxy that ends TLS says whose certificate it saw; a LOCAL connection is
the proxy's own health check.
"""

import ipaddress
import re
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER_BYTES = 16
MAX_BODY_BYTES = 4096  # addresses take 36 bytes; the rest are TLVs
# The SHA-256 of the client's certificate, in hexadecimal; E0 to EF are for applications
CERTIFICATE_TLV = 0xE1
_ADDRESS_BYTES = {0: 0, 1: 12, 2: 36, 3: 216}  # by family


class NotProxy(Exception):
    """These are no PROXY protocol version 2 bytes that we take."""


def body_length(header: bytes) -> int:
    """How many bytes follow the 16 that begin the header; NotProxy."""
    if len(header) != HEADER_BYTES or header[:12] != SIGNATURE:
        raise NotProxy("no PROXY protocol version 2 signature")
    if header[12] not in (0x20, 0x21):
        raise NotProxy("PROXY protocol of another version or command")
    (length,) = struct.unpack_from(">H", header, 14)
    if length > MAX_BODY_BYTES:
        raise NotProxy("PROXY protocol header too long")
    return int(length)


def source(header: bytes, body: bytes) -> str | None:
    """The client's IP address; None if the proxy speaks for itself or does not say. NotProxy."""
    if len(body) != body_length(header):
        raise NotProxy("PROXY protocol header cut short")
    if header[12] == 0x20:
        return None
    family = header[13] >> 4
    if family == 1 and len(body) >= _ADDRESS_BYTES[family]:
        return str(ipaddress.IPv4Address(body[:4]))
    if family == 2 and len(body) >= _ADDRESS_BYTES[family]:
        return str(ipaddress.IPv6Address(body[:16]))
    if family in (0, 3):  # unspecified, UNIX
        return None
    raise NotProxy("PROXY protocol addresses cut short or of an unknown family")


def certificate(header: bytes, body: bytes) -> str | None:
    """The fingerprint (SHA-256, hexadecimal, small letters) of the client certificate that the proxy checked;
    None if there was none, or nothing that looks like one. For a header that `source` takes."""
    at = _ADDRESS_BYTES.get(header[13] >> 4, len(body))
    while at + 3 <= len(body):
        kind, length = struct.unpack_from(">BH", body, at)
        value = body[at + 3 : at + 3 + length]
        if kind == CERTIFICATE_TLV:
            text = value.decode("ascii", errors="replace").lower()
            return text if re.fullmatch("[0-9a-f]{64}", text) else None
        at += 3 + length
    return None
