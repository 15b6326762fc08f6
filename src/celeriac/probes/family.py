"""The health of several worker processes, whose facts their supervisor reads.

Rules: a process that does not run is started again by its supervisor; it makes the family not ready, and a restart of
the whole would not help.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from time import monotonic

from celeriac.probes.facts import Facts, FactsFile, Verdict
from celeriac.probes.pages import Pages


class Family:
    """The processes of one supervisor.

    :param files: the facts of each.
    """

    def __init__(self, files: Sequence[FactsFile]) -> None:
        self._files = files
        self._began = False

    def live(self) -> Verdict:
        """Whether every process that runs lives."""
        return self._all(Facts.live, absent=True)

    def ready(self) -> Verdict:
        """Whether every process is ready."""
        verdict = self._all(Facts.ready, absent=False)
        self._began = self._began or verdict.good
        return verdict

    def started(self) -> Verdict:
        """Whether all were ready once at the same time, or each of them once."""
        return Verdict(True, "started") if self._began else self._all(Facts.started, absent=False)

    def pages(self) -> Pages:
        """Return what answers the probes."""
        return {
            "/livez": lambda: self.live().page(),
            "/readyz": lambda: self.ready().page(),
            "/startupz": lambda: self.started().page(),
        }

    def _all(self, verdict: Callable[[Facts, float], Verdict], *, absent: bool) -> Verdict:
        """Look at every process; say of the first for which it does not hold why.

        :param absent: the verdict on a process that does not run.
        """
        for number, file in enumerate(self._files, 1):
            facts = file.read()
            if facts is None or not _runs(facts.pid):
                found = Verdict(absent, "does not run")
            else:
                found = verdict(facts, monotonic())
            if not found.good:
                return Verdict(False, f"process {number}: {found.text}")
        return Verdict(True, f"{len(self._files)} processes")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
