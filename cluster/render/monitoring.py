"""Prometheus's and Alertmanager's configuration. Pure; alerts and dashboards are in `monitoring/`."""

from cluster.places import PLACES
from cluster.render.text import File, endpoint, render
from cluster.topology import Host, Topology

RULES = "/etc/prometheus/rules"  # where the deployment puts `monitoring/rules`


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """Files of a monitoring host. Each watches everything; Alertmanagers agree on who tells."""
    values = {
        "topology": topology,
        "ports": topology.ports,
        "host": host,
        "watchers": topology.on("monitoring"),
        "nodes": topology.on("node"),
        "haproxies": topology.on("haproxy"),
        "etcd": topology.on("etcd"),
        "postgres": topology.on("postgres"),
        "managers": topology.on("ceph-mgr"),
        "places": PLACES,
        "rules": RULES,
        "endpoint": endpoint,
    }
    watch, tell = ("prometheus",), ("prometheus-alertmanager",)
    tier = "monitoring"
    return (
        File("/etc/prometheus/prometheus.yml", render("prometheus.yml.j2", **values), tier, reloads=watch),
        File("/etc/prometheus/alertmanager.yml", render("alertmanager.yml.j2", **values), tier, reloads=tell),
        File("/etc/default/prometheus", render("prometheus.default.j2", **values), tier, restarts=watch),
        File(
            "/etc/default/prometheus-alertmanager",
            render("alertmanager.default.j2", **values),
            tier,
            restarts=tell,
        ),
    )
