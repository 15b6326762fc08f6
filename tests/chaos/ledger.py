"""Who ran what, and when: one file a process, written in whole lines, so that SIGKILL cannot lose what was written.

Times are those of the machine's monotonic clock, the same for all its processes.
"""

import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Ledger:
    """One process's record, opened by its first line: prefork workers import before they fork.

    :param folder: ``None`` in a process that runs none of the tasks, such as the sender's.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._file: tuple[int, int] | None = None

    @classmethod
    def of_environment(cls) -> "Ledger":
        """Return the record of a worker, whose environment says where: CHAOS_LEDGER."""
        folder = os.environ.get("CHAOS_LEDGER")
        return cls(None if folder is None else Path(folder))

    @property
    def is_kept(self) -> bool:
        """Whether this process is a worker that records."""
        return self._folder is not None

    def received(self, task_id: str, retries: int) -> None:
        """A Celery worker has the message, and will run it when it can."""
        self._write("received", task_id, retries)

    def begin(self, task_id: str, retries: int, redelivered: bool) -> None:
        """A body starts."""
        self._write("again" if redelivered else "begin", task_id, retries)

    def end(self, task_id: str, retries: int) -> None:
        """A body is through."""
        self._write("end", task_id, retries)

    def _write(self, what: str, task_id: str, retries: int) -> None:
        if self._folder is None:
            raise RuntimeError(
                "a task of a chaos run ran in a process that records nothing: set CHAOS_LEDGER"
            )
        pid = os.getpid()
        if self._file is None or self._file[0] != pid:
            path = self._folder / f"{pid}.log"
            self._file = pid, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self._file[1], f"{what} {task_id} {retries} {time.monotonic():.6f}\n".encode())


@dataclass
class Run:
    """One run of a body.

    :param end: ``None`` when it never got there.
    :param redelivered: the message was marked as having been given back, or restored.
    """

    task_id: str
    retries: int
    pid: int
    begin: float
    end: float | None = None
    redelivered: bool = False


def read(folder: Path) -> Iterator[Run]:
    """Every run that was recorded. A process may run the same call twice at once: then the first begun ends first."""
    for path in folder.glob("*.log"):
        under_way: defaultdict[tuple[str, int], deque[Run]] = defaultdict(deque)
        for line in path.read_text().splitlines():
            what, task_id, retries, moment = line.split()
            runs = under_way[task_id, int(retries)]
            if what in ("begin", "again"):
                run = Run(task_id, int(retries), int(path.stem), float(moment), redelivered=what == "again")
                runs.append(run)
            elif what == "end":
                run = runs.popleft()
                run.end = float(moment)
                yield run
        for runs in under_way.values():
            yield from runs


def receipts(folder: Path) -> Mapping[tuple[str, int], Sequence[float]]:
    """When Celery workers received each message, by task id and number of retries."""
    moments: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for path in folder.glob("*.log"):
        for line in path.read_text().splitlines():
            what, task_id, retries, moment = line.split()
            if what == "received":
                moments[task_id, int(retries)].append(float(moment))
    return moments


def count_ends(folder: Path) -> int:
    """How many runs got to their end; cheap enough to be asked now and then."""
    return sum(path.read_bytes().count(b"end ") for path in folder.glob("*.log"))
