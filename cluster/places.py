"""Where things lie on a host: the one list of paths that configuration, services and deployment share. Pure.

The deployment puts the certificates there. `host.crt` has the host's name as its common name; its name, its
address, localhost, 127.0.0.1 and, on hosts with HAProxy, the virtual IP as subject alternative names; and
both the server's and the client's extended key usage, for hosts are each other's clients. Python 3.13 checks
strictly (RFC 5280): the CA's certificate needs basicConstraints and keyUsage, both critical, and all need key
identifiers. Keys belong to root and are readable by the group stele-pki, which the services' users are in.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Places:
    """Paths; the defaults are those of a deployed host."""

    ca: str = "/etc/stele/pki/ca.crt"
    certificate: str = "/etc/stele/pki/host.crt"
    key: str = "/etc/stele/pki/host.key"
    site_certificate: str = "/etc/stele/tls/site.crt"  # its key lies beside it: site.key
    dicom_clients_ca: str = "/etc/stele/tls/dicom-clients.crt"
    topology: str = "/etc/stele/topology.yml"
    haproxy_config: str = "/var/lib/stele-agent/haproxy.cfg"
    haproxy_socket: str = "/run/haproxy/admin.sock"
    haproxy_master: str = "/run/haproxy-master.sock"
    haproxy_user: str = "haproxy"
    haproxy_chroot: str = "/var/lib/haproxy"
    bin: str = "/opt/stele/bin"
    node_settings: str = "/etc/stele/stele.toml"


PLACES = Places()
PKI_GROUP = "stele-pki"
