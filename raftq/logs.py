"""Logs: one event per line on standard error, for people or as JSON, from all libraries alike.

``configure`` once at start; ``logger`` anywhere, before or after. Where a log
call sits on a hot path, keep ``logger(...).bind()``: when its level is off, a
bound logger's method does nothing at all.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

# What these have to say below a warning the node says itself.
LIBRARY_LEVELS = {"uvicorn.error": logging.WARNING, "uvicorn.access": logging.WARNING}
LIBRARY_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "pysyncobj")


def configure(level: str, format: str, node: str, stream: TextIO | None = None) -> None:
    """From now on log at ``level`` as ``format`` ("human" or "json"), naming the node.

    Coloured when the stream is a terminal or FORCE_COLOR is set, and NO_COLOR is not.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    target = stream or sys.stderr
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _NodeName(node),
    ]
    closing = _closing(format, coloured=_coloured(target, os.environ))
    structlog.configure(
        processors=[*shared, *closing],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_component, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *closing],
        )
    )
    _take_over_stdlib(handler, threshold)


def logger(component: str) -> FilteringBoundLogger:
    """A logger whose events name the part of the node they come from."""
    return cast(FilteringBoundLogger, structlog.get_logger(component=component))


class _NodeName:
    """Puts the node's name into every event; contextvars would not reach executor threads."""

    def __init__(self, node: str) -> None:
        self._node = node

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("node", self._node)
        return event


def _component(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["component"] = event["_record"].name
    return event


def _closing(format: str, *, coloured: bool) -> list[Processor]:
    if format == "json":
        # Plain text: structured tracebacks would carry local variables, and with them secrets.
        return [structlog.processors.format_exc_info, _json]
    return [
        structlog.dev.ConsoleRenderer(
            colors=coloured, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    ]


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


def _coloured(target: TextIO, environ: Mapping[str, str]) -> bool:
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or target.isatty()


def _take_over_stdlib(handler: logging.Handler, threshold: int) -> None:
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in LIBRARY_LOGGERS:
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
        library.setLevel(max(threshold, LIBRARY_LEVELS.get(name, threshold)))
