"""Logs: one JSON object a line on standard error, without patient data.

Nothing out of a dataset is ever logged; what the node logs are UIDs of its own making, AE titles,
counts, times, reasons. The standard library's loggers (pynetdicom, gunicorn, psycopg) go the same way,
from `warning` up, so that a library's own wording cannot carry a dataset's value at lower levels.
"""

import logging
import sys

import structlog


def set_up(level: str, role: str) -> None:
    """Configure this process's logging; `role` is the kind of process (dimse, web, worker, …)."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
