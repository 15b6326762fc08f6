"""Messages as the Celery app itself writes them, kept in place of being published.

What follows a task is decided and written by Celery's own code, in the task's thread and with its request at hand:
overridden ``apply_async``, routers that look at arguments, ``before_task_publish``, stamps. A producer that keeps what
it is given stands between that code and the broker; celeriac publishes the messages together with the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Self

from celery import Celery
from kombu import Producer

from celeriac.wire.envelope import Envelope, Route
from celeriac.worker.decision import Written

KEPT: ContextVar[list[Written] | None] = ContextVar("celeriac_kept", default=None)
"""Where the messages go that this thread would publish; ``None`` publishes them."""


class KeepingProducer(Producer):  # type: ignore[misc]
    """Encodes messages as any producer of kombu's, and puts them into a list."""

    def __init__(self, kept: list[Written], event_exchange: str) -> None:
        super().__init__(None, auto_declare=False)
        self._kept = kept
        self._event_exchange = event_exchange
        self.__connection__ = _NoConnection()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Keep it open: there is nothing to release."""

    def revive(self, channel: Any) -> None:
        """Do nothing: there is no channel."""

    def _publish(
        self,
        body: str | bytes,
        priority: int | None,
        content_type: str,
        content_encoding: str,
        headers: dict[str, Any],
        properties: Mapping[str, Any],
        routing_key: str,
        mandatory: bool,
        immediate: bool,
        exchange: str,
        declare: Any,
        *rest: Any,
        **more: Any,
    ) -> None:
        if exchange == self._event_exchange:
            return  # the event that it is sent: nothing is, yet
        reply_to = properties.get("reply_to")
        envelope = Envelope(
            body=body.encode() if isinstance(body, str) else bytes(body),
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers,
            correlation_id=properties.get("correlation_id"),
            reply_to=getattr(reply_to, "name", reply_to) or None,
            priority=priority or 0,
            expiration=properties.get("expiration"),
            delivery_mode=properties.get("delivery_mode") or 2,
            app_id=properties.get("app_id"),
        )
        queue = next((name for entity in declare or () if (name := getattr(entity, "name", None))), None)
        self._kept.append((envelope, Route(routing_key, exchange or "", queue, _due(headers))))


class _NoConnection:
    """Stands for the connection of a producer that sends nothing, as far as Celery asks it for anything."""

    recoverable_connection_errors: tuple[type[Exception], ...] = ()
    recoverable_channel_errors: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self.transport_options: dict[str, Any] = {}

    @contextmanager
    def _reraise_as_library_errors(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        yield

    def ensure(self, producer: Any, publish: Callable[..., Any], **policy: Any) -> Callable[..., Any]:
        """Return the function as it is."""
        return publish


@contextmanager
def keeping(kept: list[Written]) -> Iterator[None]:
    """Keep in a list what this thread would publish within the block."""
    token = KEPT.set(kept)
    try:
        yield
    finally:
        KEPT.reset(token)


def divert(celery: Celery) -> None:
    """Let an app's own code keep its messages wherever ``KEPT`` says so; elsewhere nothing changes."""
    if "producer_or_acquire" in vars(celery):
        return
    usual = celery.producer_or_acquire

    def producer_or_acquire(producer: Producer | None = None) -> Any:
        kept = KEPT.get()
        if kept is None or producer is not None:
            return usual(producer)
        return KeepingProducer(kept, celery.conf.event_exchange)

    celery.producer_or_acquire = producer_or_acquire


def _due(headers: Mapping[str, Any]) -> float | None:
    eta = headers.get("eta")
    if not isinstance(eta, str):
        return None
    due = datetime.fromisoformat(eta)
    return (due if due.tzinfo is not None else due.replace(tzinfo=UTC)).timestamp()
