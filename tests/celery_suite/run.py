"""Runs Celery's own integration suite, from its source distribution, against a worker that is a process of its own.

``python -m tests.celery_suite.run threads processes`` prints which tests fail with celeriac's worker. With ``celery``
it runs Celery's own worker in the same harness, which tells what any worker from outside can pass: some tests of the
suite look into the memory of a worker that they expect in their own process.
"""

import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.servers import RedisServer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORKERS: Mapping[str, str] = {
    "celery": "-m celery -A tests.celery_suite.suite_app worker -P prefork -c 1 -l info -n NODE",
    "threads": "-m celeriac worker -A tests.celery_suite.suite_app -P threads -c 1 -n NODE",
    "processes": "-m celeriac worker -A tests.celery_suite.suite_app -P processes -c 1 -n NODE",
}
"""The workers that the suite can run against, as arguments of Python."""


def unpacked(version: str, place: Path) -> Path:
    """Return the directory that holds Celery's ``t`` package, which is fetched where it is not there yet."""
    directory = place / f"celery-{version}"
    if not directory.exists():
        place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", str(place), f"celery=={version}"], check=True)
        with tarfile.open(place / f"celery-{version}.tar.gz") as archive:
            members = [one for one in archive if one.name.startswith(f"celery-{version}/t/")]
            archive.extractall(place, members, filter="data")
        bridge = (HERE / "bridge.py").read_text()
        with (directory / "t" / "integration" / "conftest.py").open("a") as conftest:
            conftest.write(f"\n\n{bridge}")
    return directory


def run(
    directory: Path,
    worker: str,
    broker: str,
    backend: str,
    redis_port: int,
    chosen: Sequence[str] = (),
    log: Path = Path("worker.log"),
    timeout: float = 60,
) -> dict[str, str]:
    """Run the suite; return the outcome of each test, ``passed``, ``failed`` or ``skipped``, by its name."""
    report = log.with_suffix(".xml")
    environment = {
        **os.environ,
        "C_FORCE_ROOT": "1",
        "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
        "REDIS_PORT": str(redis_port),
        "SUITE_LOG": str(log),
        "SUITE_WORKER": f"{sys.executable} {WORKERS[worker]}",
        "TEST_BACKEND": backend,
        "TEST_BROKER": broker,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(directory)]
    command += [
        "-o",
        "python_classes=test_*",
        "-p",
        "celery.contrib.pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:celeriac",
        "-o",
        "asyncio_mode=strict",
        "-W",
        "ignore",
    ]
    command += ["--timeout", str(timeout), f"--junitxml={report}", *(chosen or ["t/integration"])]
    subprocess.run(command, cwd=directory, env=environment, check=False)
    return outcomes(report)


def outcomes(report: Path) -> dict[str, str]:
    """Return the outcome of each test of a JUnit report."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('t.integration.')}.{case.get('name')}"
        ended = {child.tag for child in case}
        failed = ended & {"failure", "error"}
        found[name] = "failed" if failed else "skipped" if "skipped" in ended else "passed"
    return found


def main() -> int:
    """Run the suite against each worker that the command line names; return 1 where a test failed."""
    place = Path(os.environ.get("CELERY_SUITE", ROOT / ".celery-suite"))
    directory = unpacked("5.7.0", place)
    failed = 0
    with RedisServer() as redis:
        url = redis.url()
        for worker in sys.argv[1:] or ["threads", "processes"]:
            found = run(directory, worker, url, url, redis.port, log=place / f"{worker}.log")
            names = sorted(name for name, outcome in found.items() if outcome == "failed")
            failed += len(names)
            print(f"{worker}: {sum(one == 'passed' for one in found.values())} passed, {len(names)} failed")
            print(*(f"  {name}" for name in names), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
