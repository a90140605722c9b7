"""JSON logs on stdout, one line for each record, the server's own records included."""

import json
import logging
import logging.config
from contextvars import ContextVar
from datetime import UTC, datetime

from guestbook.settings import settings

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class JsonFormatter(logging.Formatter):
    """One JSON object a record, with the request, app, release and slot that it belongs to."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a single line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "app": settings.app,
            "release": settings.release,
            "slot": settings.slot,
            "pid": record.process,
        }
        if identifier := request_id.get():
            line["request_id"] = identifier
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging() -> None:
    """Send every logger through the JSON formatter; the access log is left to nginx."""
    through_root = {"handlers": [], "level": "INFO", "propagate": True}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonFormatter}},
            "handlers": {
                "stdout": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "json",
                }
            },
            "root": {"handlers": ["stdout"], "level": "INFO"},
            "loggers": {
                "alembic": {"level": "WARNING"},
                "uvicorn": through_root,
                "uvicorn.error": through_root,
                "gunicorn.error": through_root,
                "uvicorn.access": {"handlers": [], "propagate": False},
                "gunicorn.access": {"handlers": [], "propagate": False},
            },
        }
    )
