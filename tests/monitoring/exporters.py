"""Which metrics there are: our own as the code defines them, the exporters' as a deployed cluster had them.

`exporters/JOB.txt` has the names that Prometheus knows of a job, one a line. To write them anew from a lab
that a cluster is deployed on and that has been used: `python -m tests.monitoring.exporters`.
`unseen.txt` has what a lab cannot tell, from the same programs elsewhere: the state of the kernel's clock,
which a container may not ask for.
"""

import re
from pathlib import Path
from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase

from chaos.lab import lab
from cluster import agent, backups, expiry, register
from node import metrics

FOLDER = Path(__file__).parent / "exporters"
JOBS = ("haproxy", "etcd", "patroni", "ceph", "host", "prometheus", "alertmanager")
_SAMPLES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}
_OF_PROMETHEUS = {"up", "ALERTS"}


def known() -> set[str]:
    """Names of all that can be asked for."""
    recorded = {name for job in (*JOBS, "unseen") for name in (FOLDER / f"{job}.txt").read_text().split()}
    own = {name for module in (agent, backups, expiry, metrics, register) for name in defined(module)}
    return recorded | own | _OF_PROMETHEUS


def defined(module: ModuleType) -> set[str]:
    """Names of the samples of a module's metrics."""
    families = [
        family
        for value in vars(module).values()
        if isinstance(value, MetricWrapperBase)
        for family in value.describe()
    ]
    return {family.name + end for family in families for end in _SAMPLES[family.type]}


def asked(expression: str) -> set[str]:
    """Names of the metrics in a PromQL expression."""
    rest = re.sub(r'"(\\.|[^"\\])*"', "", expression)
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", rest)
    rest = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", rest)
    words = set(re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*\b(?!\s*\()", rest))
    return words - {"and", "or", "unless", "offset", "bool", "group_left", "group_right"}


def main() -> None:
    """Write the names anew."""
    watching = lab.attach("lab").hosts["host1"]
    FOLDER.mkdir(exist_ok=True)
    for job in JOBS:
        told = watching.run(
            *("promtool", "query", "labels", "--match", f'{{job="{job}"}}'),
            *(f"http://{watching.address}:9090", "__name__"),
        ).decode()
        # Prometheus makes the first itself, the second is its record of alerts
        names = sorted({name for name in told.split() if not re.match(r"up$|scrape_|ALERTS", name)})
        (FOLDER / f"{job}.txt").write_text("".join(f"{name}\n" for name in names))
        print(f"{job}: {len(names)}")


if __name__ == "__main__":
    main()
