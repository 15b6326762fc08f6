"""Messages and results captured from real programs; ``fixtures/`` says in each file who wrote it."""

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope
from celeriac.wire.frame import unpack

FIXTURES = Path(__file__).parent / "fixtures"
EVERYTHING = Codecs(("json", "msgpack", "yaml", "pickle"))


class Captured(msgspec.Struct):
    """One captured message: how it arrived, and what its producer meant."""

    name: str
    transport: str
    raw: Any
    decoded: dict[str, Any]

    @property
    def envelope(self) -> Envelope:
        if self.transport == "redis":
            envelope = unpack(self.raw.encode())
            assert isinstance(envelope, Envelope), envelope
            return envelope
        return _from_amqp(self.raw)

    @property
    def properties(self) -> dict[str, Any]:
        return self.decoded["properties"]

    @property
    def content_type(self) -> str:
        return self.decoded.get("content-type") or self.properties["content_type"]


def load(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def names(pattern: str) -> list[str]:
    found = sorted(path.name.removesuffix(".json") for path in FIXTURES.glob(f"{pattern}.json"))
    assert found, f"no fixture matches {pattern}"
    return found


def captured(name: str) -> list[Captured]:
    fixture = load(name)
    raw, decoded = fixture["raw"], fixture["decoded"]
    if not isinstance(raw, list):
        raw, decoded = [raw], [decoded]
    return [Captured(name, fixture["transport"], *pair) for pair in zip(raw, decoded, strict=True)]


def all_captured(pattern: str) -> Iterator[Captured]:
    for name in names(pattern):
        yield from captured(name)


def stored(name: str) -> bytes:
    """The value of a result key."""
    raw = load(name)["raw"]
    return b64decode(raw["base64"]) if isinstance(raw, dict) else raw.encode()


def _from_amqp(raw: dict[str, Any]) -> Envelope:
    properties = raw["properties"]
    return Envelope(
        body=b64decode(raw["body_base64"]),
        content_type=properties.get("content_type"),
        content_encoding=properties.get("content_encoding"),
        headers=raw["headers"] or {},
        correlation_id=properties.get("correlation_id"),
        reply_to=properties.get("reply_to"),
        priority=properties.get("priority") or 0,
        expiration=properties.get("expiration"),
        delivery_mode=properties.get("delivery_mode") or 2,
        exchange=raw["exchange"],
        routing_key=raw["routing_key"],
    )
