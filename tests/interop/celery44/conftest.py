"""The Celery of these tests is 4.4: its client and its worker are processes of the virtualenv that has it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.celery44.client import OldCeleryClient
from tests.interop.celery_worker import ROOT, CeleryWorker

PYTHON = ROOT / ".venv-celery-4.4" / "bin" / "python"


def old_worker(python: Path, url: str, backend: str | None = None) -> CeleryWorker:
    """A worker of Celery 4.4, to be entered."""
    return CeleryWorker(url, backend, celery=[str(python), "-m", f"{__package__}.bygone", "celery"])


@pytest.fixture(scope="session")
def old_python() -> Path:
    """The interpreter that has Celery 4.4."""
    if not PYTHON.exists():
        pytest.fail(
            f"{PYTHON} is missing, the virtualenv with Celery 4.4; run `make celery-4.4`", pytrace=False
        )
    return PYTHON


@pytest.fixture(scope="session")
def celery_worker(interop_url: str, old_python: Path) -> Iterator[CeleryWorker]:
    with old_worker(old_python, interop_url) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_client(interop_url: str, old_python: Path) -> Iterator[OldCeleryClient]:
    client = OldCeleryClient(old_python, interop_url)
    yield client
    client.close()


@pytest.fixture(params=["celeriac-calls-celery", "celery-calls-celeriac"])
def direction(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Who calls, and who is called."""
    caller, _, called = request.param.split("-")
    return caller, called
