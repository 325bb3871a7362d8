"""Certificates for tests: a CA and one certificate for each name, made with openssl.

They have all that Python 3.13's strict checks (RFC 5280) ask for, as those of a site must.
"""

import subprocess
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_CA = """\
[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
_EXTENSIONS = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


def make_ca(folder: Path, name: str = "ca") -> None:
    """NAME.crt and NAME.key of a certificate authority in `folder`."""
    config = folder / f"{name}.cnf"
    config.write_text(_CA)
    files = ("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"))
    _openssl(
        "req", "-x509", "-config", str(config), *_CURVE, "-days", "30", "-subj", f"/CN=test {name}", *files
    )


def make_certificate(folder: Path, name: str, *addresses: str, ca: str = "ca", days: int = 30) -> None:
    """NAME.crt and NAME.key in `folder`, for the common name NAME and for addresses."""
    key, request, extensions = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.ext"
    names = ",".join([f"DNS:{name}", "DNS:localhost", *(f"IP:{address}" for address in addresses)])
    extensions.write_text(_EXTENSIONS.format(names=names))
    _openssl("req", *_CURVE, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
    authority = ("-CA", str(folder / f"{ca}.crt"), "-CAkey", str(folder / f"{ca}.key"), "-CAcreateserial")
    result = ("-days", str(days), "-extfile", str(extensions), "-out", str(folder / f"{name}.crt"))
    _openssl("x509", "-req", "-in", str(request), *authority, *result)
    key.chmod(0o600)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
