"""Publishes requests of remote control, to every worker of a broker."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from celeriac.contracts.fanout import Exchange, Fanout
from celeriac.errors import BrokerError, EncodeError
from celeriac.wire.content import Codecs
from celeriac.wire.control import CELERYS, Request, requests_exchange, write_request
from celeriac.wire.envelope import Envelope

logger = logging.getLogger(__name__)

STORED = "stored"
"""The argument of ``revoke`` by which celeriac's workers see that the revocation is with the broker already."""

_MOST_IDS = 1000
"""Ids of one request."""


class Requests:
    """The requests of one app on one broker. What is not given is as in an app's default settings.

    :param fanout: ``None`` where the broker cannot send to all workers.
    :param namespace: what the exchanges of remote control are named after.
    :param serializer: writes the requests.
    :param tells_revoked: whether workers are told what was revoked.
    """

    def __init__(
        self,
        fanout: Fanout | None,
        codecs: Codecs,
        *,
        namespace: str = CELERYS,
        serializer: str = "json",
        tells_revoked: bool = True,
    ) -> None:
        self.fanout = fanout
        self.exchange = Exchange(requests_exchange(namespace))
        self._codecs = codecs
        self._serializer = serializer
        self._tells_revoked = tells_revoked

    def write(self, request: Request) -> Envelope:
        """Return the message of a request. Raises ``EncodeError``."""
        return write_request(request, self._codecs, self._serializer)

    async def tell_revoked(self, ids: Sequence[str], *, terminate: bool) -> None:
        """Send what was revoked to every worker, for the sake of Celery's.

        Celery's workers keep revocations in their memory, and do not read those that are with the broker. That they
        cannot be told is no error, since there may be none.
        """
        if self.fanout is None or not self._tells_revoked:
            return
        for first in range(0, len(ids), _MOST_IDS):
            arguments = {
                "task_id": list(ids[first : first + _MOST_IDS]),
                "terminate": terminate,
                "signal": "SIGTERM",
                STORED: True,
            }
            with suppress(EncodeError):
                message = self.write(Request(method="revoke", arguments=arguments))
                try:
                    await self.fanout.publish(self.exchange, message)
                except BrokerError as error:
                    logger.debug("a revocation could not be sent to workers: %s", error)
                    return
