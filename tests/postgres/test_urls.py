"""Which URLs lead to a PostgreSQL, as users of Celery have them."""

import pytest

from celeriac import Celeriac, ConfigError
from celeriac.wire.result import SUCCESS, ResultRecord


@pytest.mark.parametrize("scheme", ["sqla+postgresql", "sqla+postgresql+psycopg2", "sqlalchemy+postgresql"])
def test_kombus_broker_is_refused_with_the_reason(scheme: str):
    with pytest.raises(
        ConfigError, match=f"{scheme}://.*keeps every row for ever: use postgresql://".replace("+", r"\+")
    ):
        Celeriac("shop", f"{scheme}://user@db.example.com/shop")


@pytest.mark.parametrize(
    "scheme",
    [
        "db+postgresql",
        "db+postgresql+psycopg",
        "db+postgresql+psycopg2",
        "db+postgresql+asyncpg",
        "postgresql",
        "postgres",
    ],
)
async def test_the_driver_that_a_url_of_celerys_names_is_ignored(postgres_url: str, scheme: str):
    async with Celeriac("shop", "memory://", postgres_url.replace("postgresql", scheme, 1)) as app:
        backend = app.connections().backend
        await backend.store(backend.encode(ResultRecord("one", SUCCESS, 5)))
        (record,) = await backend.load(["one"])
        assert record is not None
        assert record.result == 5
