"""Who we are to the cluster's services, and whom we believe: a CA and this host's certificate."""

import ssl
from dataclasses import dataclass

import requests

from cluster.places import PLACES


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM files. Certificates are checked both ways (mutual TLS)."""

    ca: str = PLACES.ca
    certificate: str = PLACES.certificate
    key: str = PLACES.key

    def session(self) -> requests.Session:
        """An HTTP session that shows our certificate, believes only our CA, and heeds no proxy settings."""
        session = requests.Session()
        session.trust_env = False
        session.verify = self.ca
        session.cert = (self.certificate, self.key)
        return session

    def unchecked(self) -> ssl.SSLContext:
        """A context that shows our certificate and takes any: for looking at what a server presents."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self.certificate, self.key)
        return context


def plain() -> requests.Session:
    """An HTTP session without TLS, for what listens on this host only."""
    session = requests.Session()
    session.trust_env = False
    return session
