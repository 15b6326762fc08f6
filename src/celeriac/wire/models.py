"""Pydantic models as JSON objects and back.

Rules: pydantic is never imported, a model is known by its methods. A model is written only if its class makes the same
value of what is written; what hides, drops or renames a field without a way back is an ``EncodeError``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from celeriac.errors import EncodeError
from celeriac.wire.preview import preview

FORMS: tuple[Mapping[str, Any], ...] = (
    {},
    {"round_trip": True},  # without computed fields
    {"by_alias": True, "round_trip": True},
)
"""How a model may be written; the first form that its class reads back as the same value is taken."""


def is_model(kind: Any) -> bool:
    """Whether this is a class of pydantic models."""
    return isinstance(kind, type) and hasattr(kind, "model_validate") and hasattr(kind, "model_dump")


def dump_model(model: Any) -> Any:
    """Return the model as values that JSON has. Raises ``EncodeError`` if its class would read another value."""
    kind = type(model)
    reason = ""
    for form in FORMS:
        try:
            written = model.model_dump(mode="json", warnings=False, **form)
            found = load_model(kind, written)
            same = bool(found == model)
        except BaseException as error:  # noqa: BLE001 - validators and serializers are code of the user
            reason = reason or f"{kind.__name__} does not read back what it writes: {_shown(error)}"
            continue
        if same:
            return written
        reason = f"{kind.__name__} would arrive as another value{_changed(model, found)}"
    raise EncodeError(f"{reason}; let it serialize to what its class reads back, or send its parts")


def load_model(kind: Any, value: Any) -> Any:
    """Return the model that a decoded value stands for. Raises ``ValueError`` for what does not fit.

    A strict model takes from JSON what it refuses as a Python value: text for a time, a list for a tuple.
    """
    try:
        return kind.model_validate(value)
    except ValueError:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            text = ""
        if not text:
            raise
        try:
            return kind.model_validate_json(text)
        except ValueError:
            pass
        raise


def problem(error: ValueError) -> str:
    """Return what pydantic found wrong in one line; its own text has several lines a problem."""
    problems: list[dict[str, Any]] = getattr(error, "errors", list)()
    told = (f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in problems)
    return "; ".join(told) or str(error)


def _shown(error: BaseException) -> str:
    return problem(error)[:300] if isinstance(error, ValueError) else preview(error, 300)


def _changed(model: Any, found: Any) -> str:
    """Name the fields that differ; never their values, which may be secret."""
    names = ", ".join(repr(name) for name in _differing(model, found))
    return f" (field {names})" if names else ""


def _differing(model: Any, found: Any) -> Iterator[str]:
    for name in getattr(type(model), "model_fields", ()):
        if getattr(model, name, None) != getattr(found, name, None):
            yield name
