"""Certificates for tests: a CA and one certificate for each name, made with openssl."""

import subprocess
from pathlib import Path

_EXTENSIONS = "keyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n"


def make_ca(folder: Path, name: str = "ca") -> None:
    """NAME.crt and NAME.key of a certificate authority in `folder`."""
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-subj", f"/CN=test {name}", "-keyout", str(folder / f"{name}.key"),
        "-out", str(folder / f"{name}.crt"),
    )  # fmt: skip


def make_certificate(folder: Path, name: str, *addresses: str, ca: str = "ca", days: int = 30) -> None:
    """NAME.crt and NAME.key in `folder`, for the common name NAME and for addresses."""
    key, request, extensions = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.ext"
    names = ",".join([f"DNS:{name}", "DNS:localhost", *(f"IP:{address}" for address in addresses)])
    extensions.write_text(f"subjectAltName={names}\n{_EXTENSIONS}")
    _openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request),
    )  # fmt: skip
    _openssl(
        "x509", "-req", "-in", str(request), "-CA", str(folder / f"{ca}.crt"), "-CAkey",
        str(folder / f"{ca}.key"), "-CAcreateserial", "-days", str(days), "-extfile", str(extensions),
        "-out", str(folder / f"{name}.crt"),
    )  # fmt: skip
    key.chmod(0o600)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
