"""Commands show what stands in a broker, whatever it is."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner

from celeriac.cli.main import celeriac
from tests.hostile.check import make_app


async def make_tables(url: str) -> None:
    async with make_app(url, "q") as app:
        await app.connections().broker.depth("q")


def test_times_that_are_no_dates_are_shown(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/x.db"
    asyncio.run(make_tables(url))
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as file:
        for due in (1e300, float("inf"), 253402300800.0):
            parked = "INSERT INTO celeriac_message (queue, priority, due_at, frame) VALUES ('q', 0, ?, 'x')"
            file.execute(parked, [due])
            file.execute("INSERT INTO celeriac_dead VALUES (NULL, 'q', 0, 'why', ?, 'x')", [due])
    for arguments in (["queues", "scheduled"], ["queues", "scheduled", "--json"], ["dead"]):
        shown = CliRunner().invoke(celeriac, ["-b", url, *arguments])
        assert shown.exit_code == 0, shown.output
        assert "q" in shown.output


def test_numbers_of_any_length_are_ids_ports_and_sizes_that_there_are_not(tmp_path: Path):
    url, digits = f"sqlite:///{tmp_path}/x.db", "9" * 5000
    asyncio.run(make_tables(url))
    for arguments, code in (
        (["-b", url, "dead", "retry", digits], 1),
        (["-b", url, "dead", "delete", digits], 1),
        (["-b", url, "queues", "scheduled", "--cancel", digits], 1),
        (["-b", f"redis://127.0.0.1:{digits}/0", "queues"], 2),
        (["-b", f"redis://127.0.0.1/{digits}", "queues"], 2),
        (["-b", f"amqp://127.0.0.1:{digits}/", "queues"], 2),
        (["-b", f"amqp://127.0.0.1/?max_priority={digits}", "queues"], 2),
        (["-b", f"postgresql://127.0.0.1:{digits}/x", "queues"], 2),
        (["-b", url, "web", "-p", digits], 2),
    ):
        shown = CliRunner().invoke(celeriac, arguments)
        assert isinstance(shown.exception, SystemExit), (arguments[:4], repr(shown.exception)[:300])
        assert shown.exit_code == code, shown.output[:500]
