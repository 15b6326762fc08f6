"""The headers of a task message as Celery writes them, read in one typed pass.

Rules: the headers of a message are read so if they are those that Celery itself writes, each of its usual type. What
was read so says the same as the plain values, which are read of the same bytes when somebody looks at them.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Annotated, Any

import msgspec

SENT_HEADER = "x-celeriac-sent"
"""When a message was sent, in seconds since the epoch: how long it waited is known where it is taken."""

Limit = Annotated[int, msgspec.Meta(ge=0)] | Annotated[float, msgspec.Meta(ge=0)] | None


class KnownHeaders(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The headers of protocol 2, in Celery's order: the reader looks for each where it expects it."""

    lang: str | None = None
    task: str = ""
    id: str = ""
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int | None = None
    timelimit: tuple[Limit, Limit] | None = None
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    sent: float | None = msgspec.field(default=None, name=SENT_HEADER)


class TaskHeaders:
    """Headers that were read by their types: a mapping, which is read again when somebody looks into it.

    No struct and no dict: an encoder knows those, and would write what they are made of in place of the headers.

    :param known: what they say; nothing else is in them.
    :param raw: the bytes that they stand in.
    :param read: returns the plain values in those bytes.
    """

    __slots__ = ("_plain", "_values", "known", "raw")

    def __init__(self, known: KnownHeaders, raw: bytes, read: Callable[[bytes], dict[str, Any]]) -> None:
        self.known = known
        self.raw = raw
        self._plain = read
        self._values: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return name in _NAMES and name in self._read()

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header; those that are asked for are mostly not there or plain, which needs no other reading."""
        if name in _NAMES and (default is not None or name in _COMPOUND):
            return self._read().get(name, default)
        return getattr(self.known, _FIELDS[name]) if name in _NAMES else default

    def keys(self) -> KeysView[str]:
        return self._read().keys()

    def items(self) -> ItemsView[str, Any]:
        return self._read().items()

    def values(self) -> ValuesView[Any]:
        return self._read().values()

    def __eq__(self, other: object) -> bool:
        return self._read() == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        raise TypeError("headers have no hash, as a dict has none")

    def __repr__(self) -> str:
        return repr(self._read())

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self._read(),)

    def _read(self) -> dict[str, Any]:
        if self._values is None:
            self._values = self._plain(self.raw)
        return self._values


Mapping.register(TaskHeaders)


_FIELDS = {field.encode_name: field.name for field in msgspec.structs.fields(KnownHeaders)}
_NAMES = _FIELDS.keys()
_COMPOUND = frozenset({"timelimit", "stamped_headers", "stamps", "task", "id"})
"""Headers whose values here are not those of the message: of another type, or not null where they are absent."""
