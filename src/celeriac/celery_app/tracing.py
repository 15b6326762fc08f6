"""Lets the trace of a chord's last part go on in the chord's body, which another thread or process of the worker sends.

Rules: OpenTelemetry is asked only where the app has imported it; where there is no trace nothing changes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def traced(signature: dict[str, Any]) -> dict[str, Any]:
    """Return the signature of a task with headers that carry the present trace; that of a workflow as it is."""
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is None or signature.get("subtask_type"):
        return signature
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    if not carrier:
        return signature
    options = signature.get("options") or {}
    headers = {**(options.get("headers") or {}), **carrier}
    return {**signature, "options": {**options, "headers": headers}}


@contextmanager
def trace_in(headers: Mapping[str, Any]) -> Iterator[None]:
    """Let what is sent within the block be in the trace that these headers carry."""
    propagate, context = sys.modules.get("opentelemetry.propagate"), sys.modules.get("opentelemetry.context")
    if propagate is None or context is None:
        yield
        return
    carrier = {name: value for name, value in headers.items() if isinstance(value, str)}
    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
