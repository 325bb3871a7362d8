"""Command-line options that tell a program where the archive is and who it is there."""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from chaos.target import Dicom, Tls, Web


def add(parser: argparse.ArgumentParser) -> None:
    """The options that traffic and read-back share."""
    archive = parser.add_argument_group("the archive; addresses may be given several times")
    archive.add_argument("--dicom", metavar="HOST:PORT", action="append", required=True)
    archive.add_argument("--http", metavar="URL", action="append", required=True, help="root of a web server")
    archive.add_argument("--called", metavar="AE", default="STELE", help="its AE title (%(default)s)")
    archive.add_argument("--ca", metavar="FILE", default="", help="PEM CAs of HTTPS and DICOM TLS")
    archive.add_argument("--server-name", metavar="NAME", default="", help="of its certificates; the host's")
    us = parser.add_argument_group("the clients")
    us.add_argument("--calling", metavar="AE", default="CHAOS", help="their AE title (%(default)s)")
    who = us.add_mutually_exclusive_group()
    who.add_argument("--token-file", metavar="FILE", type=Path, help="a machine's bearer token")
    who.add_argument("--login-file", metavar="FILE", type=Path, help="a person's NAME:PASSWORD")
    us.add_argument("--tls-certificate", metavar="FILE", default="", help="PEM; turns DICOM TLS on")
    us.add_argument("--tls-key", metavar="FILE", default="", help="PEM")


class Addresses:
    """Addresses as the options say to reach them. ValueError, OSError if the options do not fit."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._token = options.token_file.read_text().strip() if options.token_file else ""
        self._login = _login(options.login_file)

    def web(self, urls: Iterable[str]) -> list[Web]:
        """Web servers by their URLs."""
        return [self._web(url) for url in urls]

    def deleting(self, url: str, token_file: Path | None) -> Web:
        """A web server as one sees it who may delete; with a token of their own if there is one."""
        web = self._web(url)
        return web if token_file is None else replace(web, token=token_file.read_text().strip(), login=None)

    def _web(self, url: str) -> Web:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url}: not an http or https URL")
        name = self._options.server_name if url.startswith("https://") else ""
        return Web(url.rstrip("/"), self._options.ca, self._token, self._login, name)

    def dicom(self, addresses: Iterable[str]) -> list[Dicom]:
        """AEs by HOST:PORT."""
        return [_dicom(address, self._options) for address in addresses]


def _login(file: Path | None) -> tuple[str, str] | None:
    if file is None:
        return None
    name, colon, password = file.read_text().strip().partition(":")
    if not colon:
        raise ValueError(f"{file}: not NAME:PASSWORD")
    return name, password


def _dicom(address: str, options: argparse.Namespace) -> Dicom:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address}: not HOST:PORT")
    tls = None
    if options.tls_certificate:
        if not (options.tls_key and options.ca):
            raise ValueError("DICOM TLS needs --ca and --tls-key, too")
        tls = Tls(options.ca, options.tls_certificate, options.tls_key, options.server_name or host)
    return Dicom(host.strip("[]"), int(port), options.called, options.calling, tls)
