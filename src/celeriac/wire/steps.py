"""The later steps of a chain, as the bytes they came in.

Rules: a step is read when it is asked for; what is not asked for is passed on as it is, so that a step of a long chain
costs no more than a copy of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import msgspec

from celeriac.wire.extended_json import decode_json


class Steps(Sequence[dict[str, Any]]):
    """Signatures in wire order: the next step is the last.

    :param raws: the JSON object of each, in ASCII and without tagged values.
    """

    __slots__ = ("_raws",)

    def __init__(self, raws: Sequence[msgspec.Raw]) -> None:
        self._raws = raws

    def __len__(self) -> int:
        return len(self._raws)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Steps: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Steps:
        if isinstance(index, slice):
            return Steps(self._raws[index])
        step: dict[str, Any] = decode_json(bytes(self._raws[index]))
        return step

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.as_json())

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[dict[str, Any]]]]:
        return list, (list(self),)

    def __json__(self) -> list[dict[str, Any]]:
        return list(self)

    def as_json(self) -> bytes:
        """Return the JSON array of them."""
        return b"[" + b", ".join(self._raws) + b"]"


def as_steps(signatures: Any) -> Sequence[dict[str, Any]]:
    """Return what ``chain`` holds, one signature or several, as a sequence."""
    if isinstance(signatures, Steps):
        return signatures
    if not signatures:
        return []
    return [dict(signatures)] if isinstance(signatures, Mapping) else list(signatures)
