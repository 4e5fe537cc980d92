"""Logs: one JSON object per line on stderr, with the request's id and, after an error, its traceback.

There is no line per request: nginx writes the access log, with the same request id.
"""

import logging.config

from pythonjsonlogger.core import RESERVED_ATTRS


def configure_logging(level: str) -> None:
    # The servers' own loggers need the handler themselves: gunicorn's do not propagate, and uvicorn's
    # worker copies gunicorn's handlers.
    server = {"handlers": ["stderr"], "level": level, "propagate": False}
    silent = {"handlers": [], "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": "asgi_correlation_id.CorrelationIdFilter"}},
            "formatters": {
                "json": {
                    "()": "pythonjsonlogger.json.JsonFormatter",
                    "fmt": ["levelname", "name", "message", "process", "correlation_id"],
                    "rename_fields": {"levelname": "level", "name": "logger", "correlation_id": "request_id"},
                    "reserved_attrs": [*RESERVED_ATTRS, "color_message"],  # uvicorn's copy of the message
                    "timestamp": True,
                }
            },
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["request_id"]},
            },
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                "gunicorn.error": server,
                "uvicorn": server,
                "uvicorn.error": server,
                "uvicorn.access": silent,
            },
        }
    )
    logging.captureWarnings(True)
