"""Values, messages and results that a program may send, for Hypothesis."""

from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from celeriac.wire.failure import Failure
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import PROTOCOL_HEADERS, TaskMessage

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
any_text = st.text(st.characters(), max_size=20)
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=offsets)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | any_text
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.none() | offsets)
    | st.dates()
    | st.times()
    | st.decimals(-(10**40), 10**40, allow_nan=False, allow_infinity=False)
    | st.just(Decimal("Infinity"))
    | st.uuids()
)


def _nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
        max_leaves=8,
    )


values = _nested(scalars)
plain_values = _nested(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | names)
objects = st.dictionaries(names, values, max_size=3)
signatures = st.lists(
    st.fixed_dictionaries({"task": names, "args": st.lists(values, max_size=2)}), max_size=2
).map(lambda found: found or ())
limits = st.none() | st.integers(0, 10**6) | st.floats(0, 1e6)
optional = st.none() | names

messages = st.builds(
    TaskMessage,
    id=names,
    task=names,
    args=st.lists(values, max_size=4),
    kwargs=st.dictionaries(any_text, values, max_size=4),
    retries=st.integers(0, 2**40),
    eta=st.none() | moments,
    expires=st.none() | moments,
    group=optional,
    group_index=st.none() | st.integers(0, 10**6),
    root_id=optional,
    parent_id=optional,
    time_limit=limits,
    soft_time_limit=limits,
    ignore_result=st.none() | st.booleans(),
    shadow=optional,
    callbacks=signatures,
    errbacks=signatures,
    chain=signatures,
    chord=st.none() | st.fixed_dictionaries({"task": names, "kwargs": objects}),
    replaced_task_nesting=st.integers(0, 9),
    stamped_headers=st.none() | st.lists(names, max_size=2),
    stamps=objects,
    origin=optional,
    lang=st.sampled_from(["py", "js", "go"]),
    args_repr=any_text,
    kwargs_repr=any_text,
    headers=st.dictionaries(names.filter(lambda name: name not in PROTOCOL_HEADERS), values, max_size=2),
    correlation_id=names,
    reply_to=optional,
    app_id=optional,
    priority=st.integers(0, 255),
)

failures = st.builds(
    Failure,
    exc_type=names,
    exc_message=st.lists(values, max_size=3) | any_text,
    exc_module=optional,
)

records = st.builds(
    ResultRecord,
    task_id=names,
    status=st.sampled_from(["STARTED", "SUCCESS", "PROGRESS"]),
    result=values,
    traceback=st.none() | any_text,
    children=st.none() | st.lists(values, max_size=3),
    date_done=st.none() | moments,
    group_id=optional,
    parent_id=optional,
)
failed_records = st.builds(
    ResultRecord,
    task_id=names,
    status=st.sampled_from(["RETRY", "FAILURE", "REVOKED"]),
    result=failures,
    traceback=st.none() | any_text,
)
