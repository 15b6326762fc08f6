"""Requests of remote control and their answers (Celery: ``pidbox``).

Rules: this module is pure. A message that is no request raises ``MalformedMessage`` or ``ContentRefused``. A field of
an unexpected type counts as absent. A request may choose nodes by a pattern; a pattern that could take long to match is
ignored.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Any, TypeGuard

import msgspec

from celeriac.errors import MalformedMessage
from celeriac.quantities import is_number
from celeriac.wire.content import Codecs, Content
from celeriac.wire.envelope import Envelope

CELERYS = "celery"
"""What the exchanges of requests are named after, unless the setting ``control_exchange`` says otherwise."""

_LONGEST_PATTERN, _MOST_CHOICES = 100, 4
_CHOICE = re.compile(r"[*+?{|]")
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_SPACED = re.compile(r"\(\?(?:#|[a-zA-Z-]*x)")
"""A comment, or the flag that lets spaces and comments stand between a group and its repetition."""
_TRANSIENT, _PERSISTENT = 1, 2
_LONGEST_NAME = 200
"""Bytes that leave room for what is put before or after it; a name of AMQP has 255."""

_LATEST_CLOCK = 2**53
"""No logical clock counts so far; a forged one would no longer fit where numbers have 64 bits."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    :param destination: the nodes that are meant; ``None`` where all are, or those of the pattern.
    :param reply_to: exchange and routing key for the answer; ``None`` where none is wanted.
    :param ticket: names the request in its answers.
    :param clock: the asker's logical clock.
    :param expires: seconds since the epoch until which the asker waits for the answer; 0 for no end.
    """

    method: str
    arguments: dict[str, Any]
    destination: tuple[str, ...] | None = None
    pattern: str | None = None
    matcher: str | None = None
    reply_to: tuple[str, str] | None = None
    ticket: str | None = None
    clock: int = 0
    expires: float = 0.0

    def is_for(self, node: str) -> bool:
        """Whether this node is meant."""
        if self.destination is not None:
            return node in self.destination
        if self.pattern and self.matcher:
            return _matches(node, self.pattern, self.matcher)
        return True


def requests_exchange(namespace: str) -> str:
    """Return the name of the exchange that every worker listens to."""
    return f"{namespace}.pidbox"


def answers_exchange(namespace: str) -> str:
    """Return the name of the exchange of answers."""
    return f"reply.{namespace}.pidbox"


def write_request(request: Request, codecs: Codecs, serializer: str) -> Envelope:
    """Return the message of a request. Raises ``EncodeError`` for arguments that the serializer cannot carry."""
    body: dict[str, Any] = {
        "method": request.method,
        "arguments": request.arguments,
        "destination": None if request.destination is None else list(request.destination),
        "pattern": request.pattern,
        "matcher": request.matcher,
    }
    if request.reply_to is not None:
        exchange, key = request.reply_to
        body |= {"ticket": request.ticket, "reply_to": {"exchange": exchange, "routing_key": key}}
    content = codecs.encode(body, serializer)
    return Envelope(
        body=content.body,
        content_type=content.content_type,
        content_encoding=content.content_encoding,
        headers={"clock": request.clock, "expires": request.expires},
        delivery_mode=_PERSISTENT,
    )


def read_answers(envelope: Envelope, codecs: Codecs) -> tuple[str | None, dict[str, Any]]:
    """Return the ticket and the values by node. Raises ``MalformedMessage`` or ``ContentRefused``."""
    body = codecs.decode(envelope.body, envelope.content_type, envelope.content_encoding)
    if not isinstance(body, dict) or not all(isinstance(node, str) for node in body):
        raise MalformedMessage("an answer is an object of values by the names of nodes")
    return _text(envelope.headers.get("ticket")), body


def read_request(envelope: Envelope, codecs: Codecs) -> Request:
    """Return the request that a message holds. Raises ``MalformedMessage`` or ``ContentRefused``."""
    body = codecs.decode(envelope.body, envelope.content_type, envelope.content_encoding)
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        raise MalformedMessage("a request is an object with the name of a method")
    arguments = body.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise MalformedMessage(f"arguments are an object, not {type(arguments).__name__}")
    clock, expires = envelope.headers.get("clock"), envelope.headers.get("expires")
    return Request(
        method=body["method"],
        arguments=arguments,
        destination=_names(body.get("destination")),
        pattern=_text(body.get("pattern")),
        matcher=_text(body.get("matcher")),
        reply_to=_place(body.get("reply_to")),
        ticket=_text(body.get("ticket")),
        clock=clock if type(clock) is int and 0 < clock < _LATEST_CLOCK else 0,
        expires=float(expires) if is_number(expires) else 0.0,  # type: ignore[arg-type]
    )


def write_answer(content: Content, ticket: str | None, clock: int) -> Envelope:
    """Return the message that answers a request.

    :param content: a mapping of the node's name to the value.
    """
    return Envelope(
        body=content.body,
        content_type=content.content_type,
        content_encoding=content.content_encoding,
        headers={"ticket": ticket, "clock": clock},
        delivery_mode=_TRANSIENT,
    )


def _matches(node: str, pattern: str, matcher: str) -> bool:
    if len(pattern) > _LONGEST_PATTERN:
        return False
    if matcher == "glob":
        return fnmatch.fnmatchcase(node, pattern)
    if matcher != "pcre" or _REPEATED_GROUP.search(pattern) or _SPACED.search(pattern):
        return False
    if len(_CHOICE.findall(pattern)) > _MOST_CHOICES:
        return False
    try:
        return re.match(pattern, node) is not None
    except (re.error, OverflowError):  # the latter for a repetition of more than 32 bits
        return False


def _names(value: Any) -> tuple[str, ...] | None:
    if not value:
        return None
    names = [value] if isinstance(value, str) else value
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _place(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    exchange, key = value.get("exchange"), value.get("routing_key")
    return (exchange, key) if _is_name(exchange) and _is_name(key) else None


def _is_name(value: Any) -> TypeGuard[str]:
    """Whether it can name an exchange, or be a routing key, at every broker."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isascii()
