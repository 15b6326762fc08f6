"""The pytest plugin: fixtures for those who test tasks.

Rules: pytest loads this in every project of an environment that celeriac is installed in, so it stands outside of the
package, and imports celeriac only when a test asks for a fixture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celeriac import Celeriac
    from celeriac.testing.blocking import BlockingWorker
    from celeriac.testing.clock import ManualClock
    from celeriac.testing.faults import Faults


@pytest.fixture
def celeriac_clock() -> ManualClock:
    """A clock that stands still until it is told to go on; the clock of ``celeriac_app``, where a test asks for it."""
    from celeriac.testing.clock import ManualClock

    return ManualClock()


@pytest.fixture
def celeriac_faults() -> Faults:
    """An empty script of faults."""
    from celeriac.testing.faults import Faults

    return Faults()


@pytest.fixture
def celeriac_app(request: pytest.FixtureRequest) -> Celeriac:
    """An app without tasks, on a broker and a result store in memory. For tests in one event loop."""
    from celeriac import Celeriac

    clock = request.getfixturevalue("celeriac_clock") if "celeriac_clock" in request.fixturenames else None
    return Celeriac("test", broker="memory://", backend="memory://", clock=clock)


@pytest.fixture
def celeriac_file_app(tmp_path: Path) -> Celeriac:
    """An app without tasks, on a SQLite file of the test's own. For blocking tests, threads and processes."""
    from celeriac import Celeriac

    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    return Celeriac("test", broker=url, backend=url)


@pytest.fixture
def celeriac_testing() -> Iterator[Callable[..., BlockingWorker]]:
    """Called with an app, runs its tasks until the test ends: see ``Celeriac.testing``, whose options it takes."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda app, **options: stack.enter_context(app.testing(**options))
