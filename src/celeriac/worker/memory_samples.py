"""Samples of the memory that this process has (Celery: ``memsample``, ``memdump``)."""

from __future__ import annotations

from collections import deque
from pathlib import Path

_KEPT = 100
_UNITS = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "KB"))


class MemorySamples:
    """The samples that were asked for since the last dump, of which the last ``_KEPT`` are kept."""

    def __init__(self) -> None:
        self._samples: deque[str] = deque(maxlen=_KEPT)

    def take(self) -> str | None:
        """Return the resident memory now as Celery writes it, such as ``57.719MB``; ``None`` where it is not known."""
        resident = _resident()
        if resident is None:
            return None
        sample = _as_text(resident)
        self._samples.append(sample)
        return sample

    def dump(self, most: int = 10) -> str:
        """Return the last samples and the present memory, a line each, as Celery does, and forget the samples.

        :param most: how many samples at most.
        """
        taken = list(self._samples)[-most:] if most > 0 else []
        self._samples.clear()
        lines = ["- rss (sample):", *(f"-    > {sample}," for sample in taken)] if taken else []
        resident = _resident()
        now = "not known on this system" if resident is None else f"{_as_text(resident)}."
        return "\n".join([*lines, f"- rss (end): {now}", ""])


def _resident() -> int | None:
    """Return the resident bytes of this process."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmRSS:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def _as_text(size: int) -> str:
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.5g}{name}"
    return f"{size}b"
