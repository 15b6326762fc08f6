"""What the measurements were taken on, and what else ran there meanwhile."""

import os
import platform
import resource
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = {name: name for name in ("celeriac", "celery", "kombu", "hiredis", "msgspec", "uvloop")} | {
    "redis-py": "redis"
}
LOOPS = 1_000_000


class Machine:
    """Describes the machine, and tells from its start to its end how much of it others used.

    :ivar servers: versions of further servers that took part, by name.
    """

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.servers: dict[str, str] = {}
        self._clock = time.perf_counter()
        self._busy, self._own = busy_seconds(), own_seconds()
        self._speeds = [fixed_loop()]

    def pace(self) -> None:
        """Take note of how fast the machine is just now."""
        self._speeds.append(fixed_loop())

    def describe(self, redis_version: str) -> dict[str, Any]:
        """What a reader must know to judge the numbers."""
        seconds = time.perf_counter() - self._clock
        foreign = (busy_seconds() - self._busy) - (own_seconds() - self._own)
        return {
            "date": self.started.isoformat(timespec="seconds"),
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
            "python": platform.python_version(),
            "redis_server": redis_version,
            "servers": self.servers,
            "packages": packages(),
            "seconds": round(seconds, 1),
            "fixed_loop_ms": [round(speed, 1) for speed in self._speeds],
            "cores_used_by_others": round(max(0.0, foreign / seconds), 2),
        }


def packages() -> dict[str, str]:
    """The versions of what takes part."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def fixed_loop() -> float:
    """Milliseconds that a fixed piece of Python takes: where this drifts, so does all else."""
    start = time.perf_counter()
    total = 0
    for number in range(LOOPS):
        total += number & 7
    return (time.perf_counter() - start) * 1000


def busy_seconds() -> float:
    """Processor seconds that all programs have used since the system started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)  # in Linux guests are part of user


def own_seconds() -> float:
    """Processor seconds of this program and all that it has started and seen end."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
