"""Logs: one JSON object a line on standard error, without patient data.

Nothing out of a dataset is ever logged; what the node logs are UIDs of its own making, AE titles,
counts, times, reasons. The standard library's loggers (pynetdicom, gunicorn, psycopg) go the same way,
from `warning` up, so that a library's own wording cannot carry a dataset's value at lower levels. An
exception is logged by its kind and its place: its message, and the source lines and values that a
traceback shows, could quote a dataset. That holds for those that nobody catches, too.
"""

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

import structlog

_FRAMES = 6

log = structlog.get_logger()


def place_of(error: BaseException) -> dict[str, Any]:
    """What a log may say of a fault: its kind and where it happened, the innermost frame last."""
    return _place(type(error), error.__traceback__)


def _place(kind: type[BaseException], trace: TracebackType | None) -> dict[str, Any]:
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    return {"kind": kind.__name__, "at": [f"{each.filename}:{each.lineno}" for each in frames]}


def set_up(level: str, role: str) -> None:
    """Configure this process's logging; `role` is the kind of process (dimse, web, worker, …)."""

    def with_role(_logger: Any, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"role": role, **event}  # not a context variable: threads begin without those

    shared: list[structlog.typing.Processor] = [
        with_role,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exception_by_place,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
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
    sys.excepthook = lambda kind, _error, trace: _uncaught(kind, trace)
    threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_traceback)
    sys.unraisablehook = lambda told: _uncaught(told.exc_type, told.exc_traceback)


def _exception_by_place(
    _logger: Any, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A structlog processor in place of its own, which writes a traceback."""
    told = event.pop("exc_info", None)
    error = sys.exc_info()[1] if told is True else told[1] if isinstance(told, tuple) else told
    return {**event, **place_of(error)} if isinstance(error, BaseException) else event


def _uncaught(kind: type[BaseException], trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):  # by which a thread may end on purpose
        log.critical("uncaught exception", **_place(kind, trace))
