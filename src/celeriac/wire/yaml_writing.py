"""Writes YAML that its readers can read.

Rules: the library writes some values that no reader makes again: a tuple that is a key, the offset of a time that has
seconds, nesting that ``check_yaml`` refuses. Each is an error here, so that the sender gets it and not the reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import yaml

from celeriac.wire.yaml_budget import DEEPEST

if TYPE_CHECKING:
    _Dumper = yaml.SafeDumper
else:
    _Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_MINUTE = timedelta(minutes=1)


class ReadableDumper(_Dumper):
    """The library's safe dumper, of which a reader could read everything."""

    _levels = 0

    def represent_data(self, data: Any) -> Any:
        if self._levels >= DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        if isinstance(data, datetime) and (offset := data.utcoffset()) and offset % _MINUTE:
            raise ValueError(f"the offset of {data} has seconds, for which YAML has no place")
        self._levels += 1
        try:
            return super().represent_data(data)
        finally:
            self._levels -= 1

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        keys: Iterable[Any] = mapping if hasattr(mapping, "items") else (key for key, _ in mapping)
        if any(isinstance(key, tuple) for key in keys):
            raise ValueError("a tuple cannot be a key, or in a set")
        return super().represent_mapping(tag, mapping, flow_style=flow_style)


def write_yaml(value: Any) -> bytes:
    """Return a value as YAML. Raises for one that a reader would not make again."""
    return str(yaml.dump(value, Dumper=ReadableDumper)).encode()
