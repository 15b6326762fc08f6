"""The constraints in ``Annotated[...]``, as msgspec checks them.

Rules: neither annotated-types nor pydantic is imported; their constraints are recognised by their attributes. A
constraint that msgspec cannot check, such as a predicate or a bound of a ``Decimal``, is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import msgspec

NAMES = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


def with_constraints(hint: Any) -> Any:
    """Return a type hint in which msgspec finds the constraints that others wrote; itself where there are none."""
    origin, members = get_origin(hint), get_args(hint)
    if origin is Literal or not members:
        return hint
    try:
        if origin is Annotated:
            return _annotated(hint, members)
        changed = tuple(map(with_constraints, members))
        if all(new is old for new, old in zip(changed, members, strict=True)):
            return hint
        return Union[changed] if origin in (Union, UnionType) else origin[changed]  # noqa: UP007
    except (TypeError, ValueError):  # a hint that is made otherwise
        return hint


def _annotated(hint: Any, members: tuple[Any, ...]) -> Any:
    inner, *told = members
    changed = with_constraints(inner)
    found = [constraint for one in told for constraint in _constraints(one)]
    if changed is inner and not found:
        return hint
    kept, annotated = changed, cast(Any, Annotated)
    for constraint in (*(one for one in told if isinstance(one, msgspec.Meta)), *found):
        wider = annotated[kept, constraint]
        kept = wider if _is_known(wider) else kept
    return kept


def _constraints(told: Any) -> Iterator[msgspec.Meta]:
    if isinstance(told, msgspec.Meta | type):
        return
    for part in getattr(told, "metadata", None) or (told,):  # pydantic's Field has a list of them
        for name in NAMES:
            value = getattr(part, name, None)
            if value is not None:
                yield from _meta(name, getattr(value, "pattern", value))


def _meta(name: str, value: Any) -> Iterator[msgspec.Meta]:
    try:
        yield msgspec.Meta(**{name: value})
    except (TypeError, ValueError):  # a bound that is no number
        return


def _is_known(hint: Any) -> bool:
    try:
        msgspec.json.Decoder(hint)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True
