"""The form in which an ending that a child itself decided comes to the worker.

Rules: what has to be stored and published comes as bytes that are ready; the value itself does not travel.
"""

from __future__ import annotations

import pickle
from datetime import UTC
from typing import Any, NamedTuple

import msgspec

from celeriac.contracts.backend import EncodedPart, EncodedResult
from celeriac.wire.preview import preview
from celeriac.wire.result import EXCEPTION_STATES, SUCCESS, ResultRecord
from celeriac.worker.concluding import Conclusion
from celeriac.worker.decision import Decision, Ending, Kind, Raised, Returned, Settle
from celeriac.worker.pools.processes.portable import Likeness, portable, restored
from celeriac.worker.raised import as_exception

_FIELDS = ResultRecord.__struct_fields__
_RESULT, _CHILDREN, _ARGS, _KWARGS, _DATE, _ARGS_REPR, _KWARGS_REPR = map(
    _FIELDS.index, ("result", "children", "args", "kwargs", "date_done", "args_repr", "kwargs_repr")
)
"""Where in a record stand its values, which do not travel, since the payload has them; and its date."""

Told = tuple[bytes, list[Any]] | EncodedResult
"""A result: its payload, and the fields of its record, since a struct takes ten times as long to be pickled; or, of a
store whose payload is not all that it writes, the result as that store made it.
"""


class Shown:
    """Stands for a value that stayed in the child; it looks the same in a log."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class Concluded(NamedTuple):
    """A decision on its way to the worker; its fields are those of ``Decision``."""

    state: str | None
    results: list[Told]
    parts: list[EncodedPart]
    written: list[Any]
    once: str | None
    publish_first: bool
    settle: str
    until: float
    reason: str
    error: Likeness | None
    traceback: str | None
    shown: str


def can_be_stored(conclusion: Conclusion) -> bool:
    """Whether to store its results, if it has any, is all that is left to be done for an ending.

    A failure's go with what else is told of it.
    """
    decision = conclusion.decision
    if decision is None or not conclusion.gone or decision.error is not None:
        return False
    is_more = decision.leads_on or decision.parts or decision.once is not None
    return not is_more and decision.settle is Settle.ACK


def written(conclusion: Conclusion, *, stored: bool = False) -> bytes:
    """Return the decision of a conclusion as bytes.

    :param stored: whether its results are stored, and so do not travel.
    """
    decision, ending = conclusion.decision, conclusion.ending
    assert decision is not None
    error = decision.error
    concluded = Concluded(
        decision.state,
        [] if stored else [_told(result) for result in decision.results],
        [_light_part(part) for part in decision.parts],
        list(decision.written),
        decision.once,
        decision.publish_first,
        decision.settle.value,
        decision.until,
        decision.reason,
        None if error is None else portable(as_exception(error)),
        getattr(ending, "traceback", None),
        preview(ending.value) if isinstance(ending, Returned) else "",
    )
    return pickle.dumps(tuple(concluded), pickle.HIGHEST_PROTOCOL)


def read(body: bytes | bytearray | memoryview, conclusion: Conclusion) -> None:
    """Put what a child decided into the worker's conclusion."""
    concluded = Concluded(*pickle.loads(body))  # noqa: S301 - our own bytes
    error = None if concluded.error is None else restored(concluded.error)
    ending: Ending
    if concluded.state == SUCCESS or error is None:
        ending = Returned(Shown(concluded.shown), ())
    else:
        ending = Raised(error, (), concluded.traceback)
    conclusion.ending = ending
    conclusion.decision = Decision(
        concluded.state,
        results=[_result(told) for told in concluded.results],
        parts=concluded.parts,
        written=concluded.written,
        once=concluded.once,
        publish_first=concluded.publish_first,
        settle=Settle(concluded.settle),
        until=concluded.until,
        reason=concluded.reason,
        error=error,
        kind=Kind.ENDED,
    )


def _told(result: EncodedResult) -> Told:
    fields = list(msgspec.structs.astuple(result.record))
    fields[_RESULT] = None
    fields[_CHILDREN], fields[_ARGS], fields[_KWARGS] = [], [], {}
    if type(result) is not EncodedResult:
        return msgspec.structs.replace(result, record=ResultRecord(*fields))
    fields[_ARGS_REPR] = fields[_KWARGS_REPR] = None
    date = fields[_DATE]
    if date is not None:  # in UTC, whose object takes longer than all else to be pickled
        fields[_DATE] = date.replace(tzinfo=None)
    return result.payload, fields


def _result(told: Told) -> EncodedResult:
    if isinstance(told, EncodedResult):
        return told
    payload, fields = told
    if fields[_DATE] is not None:
        fields[_DATE] = fields[_DATE].replace(tzinfo=UTC)
    return EncodedResult(ResultRecord(*fields), payload)


def _light_part(part: EncodedPart) -> EncodedPart:
    if part.part.state in EXCEPTION_STATES:
        return part
    return msgspec.structs.replace(part, part=msgspec.structs.replace(part.part, value=None))
