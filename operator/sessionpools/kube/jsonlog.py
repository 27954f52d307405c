"""Log lines as JSON, one object a line on standard output: of every process that runs beside the API server.

Called once, by the `__main__` of each.
"""

import logging
import sys

from pythonjsonlogger.orjson import OrjsonFormatter

__all__ = ["log_json"]


def log_json(level: str) -> None:
    """From `level` (as logging names it) on; what is logged with `extra` is a field."""
    handler = logging.StreamHandler(sys.stdout)
    fields = "{asctime}{levelname}{name}{message}"
    renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
    handler.setFormatter(OrjsonFormatter(fields, style="{", rename_fields=renamed))
    logging.basicConfig(level=level, handlers=[handler])
