"""Parts of chords as they are kept in tables."""

from __future__ import annotations

from celeriac.contracts.backend import PartValue
from celeriac.errors import BackendError, WireError
from celeriac.wire.content import Codecs
from celeriac.wire.failure import Failure, read_failure
from celeriac.wire.result import EXCEPTION_STATES, decode_stored


def read_part(raw: bytes, codecs: Codecs, serializer: str) -> PartValue:
    """Return the part that was counted with these bytes. Raises ``BackendError`` for what cannot be read."""
    try:
        _, task_id, state, value = decode_stored(raw, codecs, serializer)
    except (WireError, TypeError, ValueError) as error:
        raise BackendError(f"a chord's part cannot be read: {error!s:.200}: {raw!r:.200}") from error
    if state in EXCEPTION_STATES:
        value = read_failure(value) or Failure("Exception", [repr(value)], "builtins")
    return PartValue(task_id, state, value)
