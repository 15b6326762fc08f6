"""The worker's side of the bridge: what tests expect to hear in their own process is told to it, and waited for.

Rules: each process of the worker has a connection of its own. A fact is told before the worker goes on, as if the
test's process were the worker's; a test's process that is gone ends the worker's interest, not the worker.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import suppress
from typing import Any

from celery.signals import task_received
from kombu.utils.json import dumps

TOLD = logging.INFO
"""The level from which lines of the log are told of."""


class Relay(logging.Handler):
    """Tells of received tasks, and of what Celery's loggers say.

    :param place: the Unix socket that the test's process listens on.
    """

    def __init__(self, place: str) -> None:
        super().__init__(TOLD)
        self._place = place
        self._turn = threading.Lock()
        self._connection: tuple[int, socket.socket] | None = None

    def begin(self) -> None:
        """Tell from now on; child processes that are forked later tell, too."""
        task_received.connect(self._received, weak=False)
        logging.getLogger("celery").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell of a line of the log."""
        facts = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        self._tell(
            log={**facts, "msg": record.msg, "text": record.getMessage(), "data": vars(record).get("data")}
        )

    def _received(self, request: Any = None, **_: Any) -> None:
        args, kwargs, embedded = _payload(request)
        self._tell(
            received={
                "id": request.id,
                "task_name": request.task_name,
                "replaced_task_nesting": request.replaced_task_nesting,
                "stamps": request.stamps,
                "stamped_headers": request.stamped_headers,
                "errbacks": request.errbacks,
                "payload": [args, kwargs, embedded],
            }
        )

    def _tell(self, **fact: Any) -> None:
        line = dumps(fact, default=repr).encode() + b"\n"
        with self._turn, suppress(OSError):
            connection = self._connected()
            connection.sendall(line)
            connection.recv(1)

    def _connected(self) -> socket.socket:
        if self._connection is None or self._connection[0] != os.getpid():
            made = socket.socket(socket.AF_UNIX)
            made.connect(self._place)
            self._connection = os.getpid(), made
        return self._connection[1]


def _payload(request: Any) -> Any:
    """Return arguments and what is sent along with them: Celery's own request hides it."""
    hidden = getattr(request, "_Request__payload", None)
    if hidden is not None:
        return hidden
    return request.args, request.kwargs, {"callbacks": request.callbacks, "errbacks": request.errbacks}
