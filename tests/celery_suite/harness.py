"""Celery's own integration suite, from its source distribution, against a worker that is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.servers import RabbitServer, RedisServer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VERSION = "5.7.0"
CHORDS = "test_canvas.py::test_chord"
"""The class of tests that takes as long as all other workflows."""

LATE = 180.0
"""Seconds after which a test has failed that does not say so itself."""

WORKERS: Mapping[str, str] = {
    "celery": "-m celery -A tests.celery_suite.suite_app worker -P prefork -c 1 -l info -n NODE",
    "threads": "-m celeriac worker -A tests.celery_suite.suite_app -P threads -c 1 -l info -n NODE",
    "processes": "-m celeriac worker -A tests.celery_suite.suite_app -P processes -c 1 -l info -n NODE",
}
"""The workers that the suite can run against, as arguments of Python."""

BROKERS = ("redis", "amqp")
"""The brokers; results are on Redis beside both."""

FLAGS = (
    "-q", "-rfER", "--continue-on-collection-errors", "-c", os.devnull, "-o", "python_classes=test_*",
    "-p", "celery.contrib.pytest", "-p", "no:cacheprovider", "-p", "no:celeriac", "-W", "ignore",
    "-o", "asyncio_mode=strict",
)  # fmt: skip


def unpack(place: Path) -> Path:
    """Fetch Celery's source distribution; return the directory that holds its package ``t``, with our bridge in it.

    Raises ``CalledProcessError`` where it cannot be had.
    """
    directory = place / f"celery-{VERSION}"
    if directory.exists():
        return directory
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*command, "--no-binary", "celery", "--dest", str(place), f"celery=={VERSION}"], check=True
    )
    with tarfile.open(place / f"celery-{VERSION}.tar.gz") as archive:
        members = [one for one in archive if one.name.startswith(f"celery-{VERSION}/t/")]
        archive.extractall(place, members, filter="data")
    with (directory / "t" / "integration" / "conftest.py").open("a") as conftest:
        conftest.write("\n\nfrom tests.celery_suite.bridge import celery_session_worker  # noqa\n")
    return directory


@contextmanager
def servers(broker: str) -> Iterator[Mapping[str, str]]:
    """Start what a run needs; yield the variables that tell of it."""
    with RedisServer() as redis:
        told = {"REDIS_PORT": str(redis.port), "TEST_BACKEND": redis.url()}
        if broker == "redis":
            yield {**told, "TEST_BROKER": redis.url()}
        else:
            with RabbitServer() as rabbit:
                yield {**told, "TEST_BROKER": rabbit.url()}


def run(directory: Path, worker: str, broker: str, chosen: Sequence[str], report: Path) -> dict[str, str]:
    """Run these files or tests of the suite; return the outcome of each test by its name.

    :param chosen: files or tests, and options of pytest.
    :param report: where pytest writes its report; what it and the worker print is put beside it.
    """
    with servers(broker) as told, report.with_suffix(".out").open("w") as output:
        environment = {
            **os.environ,
            **told,
            "C_FORCE_ROOT": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # for `celery`
            "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
            "SUITE_LOG": str(report.with_suffix(".log")),
            "SUITE_WORKER": f"{sys.executable} {WORKERS[worker]}",
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            *FLAGS,
            "--rootdir",
            str(directory),
            "--timeout",
            str(LATE),
        ]
        command += [
            f"--junitxml={report}",
            *(f"t/integration/{one}" if one[0] != "-" else one for one in chosen),
        ]
        subprocess.run(command, cwd=directory, env=environment, check=False, stdout=output, stderr=output)
    return outcomes(report)


def outcomes(report: Path) -> dict[str, str]:
    """Return the outcome of each test of a JUnit report: ``passed``, ``failed`` or ``skipped``."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('t.integration.')}.{case.get('name')}"
        ended = {child.tag for child in case}
        failed = ended & {"failure", "error"}
        found[name] = "failed" if failed else "skipped" if "skipped" in ended else "passed"
    return found


def baseline(broker: str) -> Path:
    """Return the file that names what passes with Celery's own worker."""
    return HERE / f"baseline_{broker}.txt"


def expected(broker: str) -> set[str]:
    """Return the names of the tests that pass with Celery's own worker."""
    return set(baseline(broker).read_text().splitlines())


def departures(broker: str) -> Mapping[str, str]:
    """Return why a test does not pass with celeriac's worker that passes with Celery's, for each that is known."""
    files = [HERE / "departures.txt", HERE / f"departures_{broker}.txt"]
    lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    return dict(line.split(": ", 1) for line in lines)
