"""The health of several worker processes, which their supervisor asks for over Unix sockets.

Rules: a process that does not run is started again by its supervisor; it makes the family not ready, and a restart of
the whole would not help. A process that is there and does not answer is stuck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from celeriac.probes.health import Verdict
from celeriac.probes.pages import Pages
from celeriac_probe import fetch

CHILD_PATIENCE = 0.8
"""Seconds that all processes together have to answer: a kubelet waits for one second."""


class Family:
    """The processes of one supervisor.

    :param sockets: the paths of their sockets.
    """

    def __init__(self, sockets: Sequence[str]) -> None:
        self._sockets = sockets
        self._began = False

    def live(self) -> Verdict:
        """Whether every process that runs lives."""
        return self._all("/livez", absent=True)

    def ready(self) -> Verdict:
        """Whether every process is ready."""
        verdict = self._all("/readyz", absent=False)
        self._began = self._began or verdict.good
        return verdict

    def started(self) -> Verdict:
        """Whether all were ready once at the same time, or each of them once."""
        return Verdict(True, "started") if self._began else self._all("/startupz", absent=False)

    def pages(self) -> Pages:
        """Return what answers the probes."""
        verdicts: dict[str, Callable[[], Verdict]] = {
            "/livez": self.live,
            "/readyz": self.ready,
            "/startupz": self.started,
        }
        return {path: lambda verdict=verdict: verdict().page() for path, verdict in verdicts.items()}  # type: ignore[misc]

    def _all(self, target: str, *, absent: bool) -> Verdict:
        """Ask every process; say of the first for which it does not hold why.

        :param absent: the verdict on a process that does not run.
        """
        patience = CHILD_PATIENCE / len(self._sockets)
        for number, path in enumerate(self._sockets, 1):
            verdict = _ask(path, target, patience, absent=absent)
            if not verdict.good:
                return Verdict(False, f"process {number}: {verdict.text}")
        return Verdict(True, f"{len(self._sockets)} processes")


def _ask(path: str, target: str, patience: float, *, absent: bool) -> Verdict:
    try:
        status, body = fetch(path, target, patience)
    except (FileNotFoundError, ConnectionError):
        return Verdict(absent, "does not run")
    except OSError as error:
        return Verdict(False, f"does not answer: {error}")
    return Verdict(status == 200, body.decode(errors="replace").strip())
