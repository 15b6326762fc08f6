"""Result records as messages (Celery: ``rpc://``, and ``amqp://`` before version 5).

Rules: each is marked as a result. The queue that a task's message names may be one that workers take tasks from, and
they must not take a result for a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from celeriac.errors import WireError
from celeriac.quantities import GRACE, or_none, require
from celeriac.servers.rabbitmq.protocol.content import Properties, about, read_properties, write_properties
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.wire.content import SERIALIZERS, Codecs
from celeriac.wire.names import RESULT_HEADER
from celeriac.wire.result import ResultRecord, decode, encode, takes_long

_PERSISTENT = 2


class ResultMessages:
    """Writes and reads the messages of a result store.

    :param serializer: what records are written with; any that ``codecs`` accepts are read.
    :param expires: seconds until an unused queue of results is dropped; ``None`` keeps it.
    :param extended: write name, arguments, worker, retries and queue too (Celery: ``result_extended``).
    :ivar arguments: what a queue of results is declared with.
    """

    def __init__(self, codecs: Codecs, serializer: str, expires: float | None, *, extended: bool) -> None:
        require("expires", expires, or_none(GRACE))
        self.arguments: Mapping[str, Any] = {"x-expires": max(1, round(expires * 1000))} if expires else {}
        self._codecs = codecs
        self._serializer = serializer
        self._content_type = SERIALIZERS.get(serializer, serializer)
        self._content_encoding = "utf-8" if serializer in {"json", "yaml"} else "binary"
        self._extended = extended
        # All but the size and the task's id is the same for every result.
        self._headers = {priority: self._without_task(priority) for priority in (None, 0)}

    def body(self, record: ResultRecord) -> bytes:
        """Return a record as it is sent. Raises ``EncodeError``."""
        return encode(record, self._codecs, serializer=self._serializer, extended=self._extended)

    def header(self, task_id: str, size: int, priority: Literal[0] | None = None) -> bytes:
        """Return the header of a body of that size. Raises ``EncodeError`` for an id that AMQP cannot carry."""
        return about(self._headers[priority], size, task_id)

    def _without_task(self, priority: int | None) -> bytes:
        marked = {RESULT_HEADER: True}
        properties = Properties(
            self._content_type, self._content_encoding, marked, _PERSISTENT, priority, correlation_id=""
        )
        return write_properties(properties, 0)

    def takes_long(self, body: bytes) -> bool:
        """Whether reading a message is better left to a thread."""
        return takes_long(body, self._codecs)

    def read_arrived(self, message: Inbound) -> tuple[str, ResultRecord | WireError]:
        """Return which task a message is about and the record that it holds, or why there is none."""
        task_id = ""
        try:
            properties = read_properties(message.header)
            task_id = properties.correlation_id or ""
            return task_id, self.read(task_id, properties, message.body)
        except WireError as error:
            return task_id, error

    def read(self, task_id: str, properties: Properties, body: bytes) -> ResultRecord:
        """Return the record that a message holds. Raises ``WireError``."""
        return decode(body, self._codecs, task_id, properties.content_type or self._serializer)
