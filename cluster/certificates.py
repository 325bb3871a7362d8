"""How long certificates last, as their servers present them."""

import socket
import ssl
import subprocess
from datetime import UTC, datetime

SECONDS = 3.0
_WRITTEN = "%b %d %H:%M:%S %Y %Z"


def expiry(address: str, port: int, context: ssl.SSLContext) -> datetime | None:
    """When the certificate of a TLS server ends; None if none could be had."""
    try:
        with (
            socket.create_connection((address, port), SECONDS) as plain,
            context.wrap_socket(plain) as connected,
        ):
            der = connected.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError):
        return None
    return end_of(der) if der else None


def end_of(der: bytes) -> datetime | None:
    """When a certificate (DER) ends."""
    command = ["openssl", "x509", "-inform", "der", "-noout", "-enddate"]
    try:
        done = subprocess.run(  # noqa: S603
            command, input=der, check=True, capture_output=True, timeout=SECONDS
        )
        text = done.stdout.decode().strip().partition("=")[2]
        return datetime.strptime(text, _WRITTEN).replace(tzinfo=UTC)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
