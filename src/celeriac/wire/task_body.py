"""The body of a task message: ``[args, kwargs, embed]``, in which protocol 2 embeds what follows the task.

Rules: of a body in JSON the steps of a chain stay JSON text, since most are only sent on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.errors import MalformedMessage
from celeriac.wire.steps import Steps

Signatures = list[dict[str, Any]] | dict[str, Any] | None

_OBJECT = ord("{")


class Embed(msgspec.Struct, gc=False):
    """What follows the task: a null part is an absent one."""

    callbacks: Signatures = None
    errbacks: Signatures = None
    chain: Signatures = None
    chord: dict[str, Any] | None = None


class Call(msgspec.Struct, gc=False, array_like=True, forbid_unknown_fields=True):
    """The body of protocol 2."""

    args: list[Any] | None
    kwargs: dict[str, Any] | None
    embed: Embed | None


class JsonEmbed(Embed, gc=False):
    """The same in JSON."""

    chain: list[msgspec.Raw] | dict[str, Any] | None = None  # type: ignore[assignment]


class JsonCall(Call, gc=False, array_like=True, forbid_unknown_fields=True):
    """The body of protocol 2 in JSON."""

    embed: JsonEmbed | None


NOTHING_EMBEDDED = Embed()

parse_call = msgspec.json.Decoder(JsonCall).decode
"""Reads a body of protocol 2."""

parse_body = msgspec.json.Decoder(JsonCall | dict[str, Any]).decode
"""Reads a body of either protocol."""


def as_list(signatures: Signatures) -> Sequence[dict[str, Any]]:
    """Return what stands for one signature or several as a sequence."""
    if not signatures:
        return ()
    return [signatures] if isinstance(signatures, dict) else signatures


def read_chain(signatures: Any) -> Sequence[dict[str, Any]]:
    """Return the steps of a chain. Raises ``MalformedMessage`` where one is no object."""
    if not isinstance(signatures, list) or not signatures or not isinstance(signatures[0], msgspec.Raw):
        return as_list(signatures)
    if any(memoryview(raw)[0] != _OBJECT for raw in signatures):
        raise MalformedMessage("chain must be a list of signatures")
    return Steps(signatures)
