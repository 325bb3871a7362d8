"""The node's metrics, defined once; every process of a node counts into the same files.

With PROMETHEUS_MULTIPROC_DIR set (the supervisor does), prometheus-client keeps each process's values
in a shared folder and the web process sums them up for `/metrics`. Labels never carry patient data: AE
titles, reasons and stages only, and AE titles only of configured peers ("other" for the rest).
"""

from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BYTES = tuple(float(4**power) for power in range(5, 18))  # 1 KiB to 16 GiB

INTAKE_SECONDS = Histogram(
    "stele_intake_seconds", "From an instance's last byte to its acknowledgement", ["edge"], buckets=_FAST
)
INTAKE_STAGE_SECONDS = Histogram(
    "stele_intake_stage_seconds", "Stages of intake: receive, object, catalog", ["stage"], buckets=_FAST
)
INTAKE_BYTES = Histogram("stele_intake_bytes", "Dataset size of stored instances", buckets=_BYTES)
INSTANCES = Counter("stele_instances_total", "Instances by what became of them", ["edge", "result"])
REFUSALS = Counter("stele_refusals_total", "Refused requests by reason", ["edge", "reason"])
QUERY_SECONDS = Histogram(
    "stele_query_seconds", "A query, first row to last", ["edge", "level"], buckets=_FAST
)
RETRIEVE_SECONDS = Histogram(
    "stele_retrieve_seconds", "A retrieval or one of its sub-operations", ["edge", "kind"], buckets=_FAST
)
RETRIEVED_BYTES = Counter("stele_retrieved_bytes_total", "Bytes sent to clients", ["edge", "kind"])
ASSOCIATIONS = Gauge("stele_associations", "Associations open now", ["state"], multiprocess_mode="livesum")
BUDGET_BYTES = Gauge(
    "stele_intake_budget_bytes", "Dataset bytes held in memory now", multiprocess_mode="livesum"
)
POOL_CONNECTIONS = Gauge(
    "stele_catalog_connections", "Catalog connections", ["state"], multiprocess_mode="livesum"
)
HTTP_SECONDS = Histogram("stele_http_seconds", "HTTP requests", ["method", "route", "status"], buckets=_FAST)
WORKER_STEP_SECONDS = Histogram(
    "stele_worker_step_seconds", "One bounded step of a background worker", ["worker"], buckets=_FAST
)
WORKER_ITEMS = Counter("stele_worker_items_total", "What background workers got done", ["worker"])
WORKER_FAILURES = Counter("stele_worker_failures_total", "Steps that raised", ["worker"])
ORPHANS = Counter("stele_orphans_total", "Objects without a row that were settled, by fate", ["fate"])
ORPHANS_KEPT = Gauge(
    "stele_orphans_kept",
    "Objects without a row that the last round could not settle: see `stele check`",
    multiprocess_mode="mostrecent",
)
AUDIT_UNSEALED = Gauge(
    "stele_audit_unsealed_events", "Audit events not sealed yet", multiprocess_mode="mostrecent"
)
AUDIT_UNSEALED_SECONDS = Gauge(
    "stele_audit_unsealed_seconds", "Age of the oldest such event", multiprocess_mode="mostrecent"
)


def forget_the_dead(folder: Path) -> None:
    """Take out of the metrics of living processes in `folder` those that ended and nobody counted out: their
    supervisor was killed, and they finished what they had begun after it."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            file.unlink(missing_ok=True)
