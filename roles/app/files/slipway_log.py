"""One line of JSON on standard error for each record of the server and of the app, and for what nobody caught.

An app that has set up logging of its own, so that a record reaches the console, keeps its own way: such a record is not
written once more. `logging.basicConfig` does nothing, as always where the root logger has a handler.

Each line has time, level, logger, message, app, release, slot and pid; request_id while a request is served, which is
the X-Request-ID that nginx has made and logged; and exception where there is one. App, release and slot are those that
SLIPWAY_APP, SLIPWAY_RELEASE and SLIPWAY_SLOT name when `configure` is called.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import types
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, TextIO

request_id: ContextVar[str] = ContextVar("request_id", default="")

# journald cuts a line of more than 48 KiB in pieces (LineMax), and then none of them is JSON. In JSON a character takes
# up to 6 bytes, and two texts are clipped.
_LONGEST_LINE = 47 * 1024
_CLIPPED = 3500


def enter_scope(scope: Mapping[str, Any]) -> None:
    """Note which request is served from here on.

    Args:
        scope: that of a request or a WebSocket, as ASGI has it.
    """
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id.set(value.decode("latin-1"))
            return
    request_id.set("")


def enter_environ(environ: Mapping[str, Any]) -> None:
    """The same for WSGI.

    Args:
        environ: that of a request.
    """
    request_id.set(environ.get("HTTP_X_REQUEST_ID", ""))


class JsonFormatter(logging.Formatter):
    """A single line for each record, whatever it holds."""

    def __init__(self) -> None:
        super().__init__()
        self._of = {name: os.environ.get(f"SLIPWAY_{name.upper()}", "") for name in ("app", "release", "slot")}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record in JSON. It never raises, for what cannot be told is told as such."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": str(record.levelname).lower(),
            "logger": record.name,
            "message": _message(record),
            **self._of,
            "pid": record.process,
        }
        if identifier := request_id.get():
            line["request_id"] = identifier
        if exception := self._exception(record):
            line["exception"] = exception
        text = _dump(line)
        # As standard error encodes it.
        if len(text.encode(errors="backslashreplace")) > _LONGEST_LINE:
            line["message"] = _clip(line["message"])
            if exception:
                line["exception"] = _clip(exception)
            text = _dump(line)
        return text

    def _exception(self, record: logging.LogRecord) -> str:
        try:
            told = self.formatException(record.exc_info) if record.exc_info else ""
        except Exception as error:
            told = f"an exception that cannot be told: {type(error).__name__}"
        return "\n".join(filter(None, (told, record.stack_info)))


def _dump(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, default=str)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        told = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{told} (what it was to say cannot be told: {type(error).__name__})"


def _clip(text: str) -> str:
    return text if len(text) <= _CLIPPED else f"{text[: _CLIPPED // 3]} [...] {text[-_CLIPPED // 2 :]}"


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes what no other handler writes to the console."""

    def filter(self, record: logging.LogRecord) -> Any:
        """Whether the record is for this handler."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger:
            if any(self._is_written_by(handler, record) for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return super().filter(record)

    def _is_written_by(self, handler: logging.Handler, record: logging.LogRecord) -> bool:
        return (
            handler is not self
            and isinstance(handler, logging.StreamHandler)
            and handler.stream in (sys.stdout, sys.stderr)
            and record.levelno >= handler.level
            and bool(handler.filter(record))
        )


HANDLER = _Console()


def configure() -> None:
    """Send the records of all loggers that way, and warnings and exceptions that nobody caught.

    SLIPWAY_LOG_LEVEL names the level from which on: debug, info, warning, error or critical. Called again, as by a
    reload, it takes up another one.
    """
    HANDLER.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(HANDLER)
    root.setLevel(os.environ["SLIPWAY_LOG_LEVEL"].upper())
    warnings.showwarning = _warned
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def gunicorn_logger() -> type:
    """gunicorn's `logger_class`: by logconfig_dict, gunicorn would log each request of WSGI as well."""
    from gunicorn.glogging import Logger  # type: ignore[import-untyped]

    class JsonLogger(Logger):  # type: ignore[misc]
        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            self.error_log.handlers = [HANDLER]
            # The root logger's, which a reload may change.
            self.error_log.setLevel(logging.NOTSET)

    return JsonLogger


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line).strip()
    if file is None:
        logging.getLogger("py.warnings").warning("%s", text)
    else:
        print(text, file=file)


def _uncaught(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
    logging.getLogger("slipway").critical("nobody caught this", exc_info=(kind, error, traceback))


def _uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_type is not SystemExit and found.exc_value:
        _uncaught(found.exc_type, found.exc_value, found.exc_traceback)
