"""What a role may do in PostgreSQL: what is missing is named, by doctor and by a starting worker."""

from collections.abc import Callable

import pytest

from celeriac import Celeriac
from celeriac.errors import BackendError, BrokerError, BrokerUnavailable
from celeriac.servers.postgres.rights import QUEUES, RESULTS, WITHOUT
from tests.cli.project import Project
from tests.servers import PostgresServer

Revoke = Callable[[str], None]


class TestRights:
    @pytest.fixture
    async def tables(self, postgres_url: str) -> None:
        """Let the owner of the schema make the tables."""
        async with Celeriac("owner", postgres_url, postgres_url) as app:
            connections = app.connections()
            await connections.broker.examine([])
            await connections.backend.examine()

    @pytest.fixture
    def revoke(self, postgres_server: PostgresServer, postgres_schema: str, tables: None) -> Revoke:
        """Take rights to the tables from the role `guest`."""

        def take(rights: str) -> None:
            with postgres_server.client(postgres_schema) as client:
                client.execute(f"REVOKE {rights} FROM guest")

        return take

    @pytest.fixture
    def url(self, postgres_server: PostgresServer, postgres_schema: str, tables: None) -> str:
        return postgres_server.url(postgres_schema, user="guest")

    async def test_what_is_lacking_is_named(self, url: str, revoke: Revoke):
        async with Celeriac("shop", url, url) as app:
            connections = app.connections()
            assert list(await connections.broker.examine(["celery"])) == []
            assert list(await connections.backend.examine()) == []
            revoke("INSERT, UPDATE ON celeriac_broadcast")
            [finding] = await connections.broker.examine(["celery"])
            assert "lacks INSERT, UPDATE on celeriac_broadcast: remote control" in finding.text
            revoke("DELETE ON celeriac_message")
            revoke("ALL ON SEQUENCE celeriac_owner_number")
            revoke("INSERT ON celery_taskmeta")
            revoke("UPDATE ON celeriac_chord")
            words = r"lacks DELETE on celeriac_message; USAGE on celeriac_owner_number; grant it"
            with pytest.raises(BrokerError, match=words) as raised:
                await connections.broker.examine(["celery"])
            assert not isinstance(raised.value, BrokerUnavailable)
            with pytest.raises(BackendError, match=r"INSERT on celery_taskmeta; UPDATE on celeriac_chord"):
                await connections.backend.examine()

    @pytest.mark.parametrize("more", [True, False], ids=["all", "required"])
    async def test_a_role_that_has_these_rights_works(
        self, postgres_server: PostgresServer, postgres_schema: str, url: str, revoke: Revoke, more: bool
    ):
        revoke(f"ALL ON ALL TABLES IN SCHEMA {postgres_schema}")
        revoke(f"ALL ON ALL SEQUENCES IN SCHEMA {postgres_schema}")
        with postgres_server.client(postgres_schema) as client:
            for rights in (QUEUES, RESULTS, *[optional for optional, _ in WITHOUT if more]):
                for name, wanted in rights.items():
                    client.execute(f"GRANT {wanted} ON {'SEQUENCE ' * (wanted == 'USAGE')}{name} TO guest")
            client.execute("GRANT SELECT ON celeriac_schema TO guest")
        async with Celeriac("shop", url, url) as app:
            app.register("add", lambda a, b: a + b)
            connections = app.connections()
            findings = await connections.broker.examine(["celery"])
            assert bool(findings) is not more
            async with app.worker(concurrency=1):
                assert await (await app.tasks["add"].send(40, 2)).wait(timeout=60) == 42
                assert await (await app.tasks["add"].send(1, 2)).wait(timeout=60) == 3
        with postgres_server.client(postgres_schema) as client:
            assert client.execute("SELECT count(*) FROM celeriac_waiting").fetchone() == (0,)

    async def test_every_table_is_asked_about(
        self, postgres_server: PostgresServer, postgres_schema: str, tables: None
    ):
        with postgres_server.client() as client:
            found = client.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [postgres_schema])
            there = {name for (name,) in found}
        known = {*QUEUES, *RESULTS, *(name for rights, _ in WITHOUT for name in rights)}
        # The versions are read on the way here; Celery's groups are only cleaned.
        assert there - known == {"celeriac_schema", "celery_tasksetmeta"}

    def test_doctor_and_a_starting_worker_end(self, project: Project, url: str, revoke: Revoke):
        revoke("DELETE ON celeriac_message")
        told = project.run("doctor", "-b", url, "--backend", "disabled://")
        assert (told.exit_code, "lacks DELETE on celeriac_message" in told.output) == (1, True)
        process = project.start("worker", "-A", project.module, "-b", url, "--backend", "disabled://")
        assert process.wait(timeout=60) == 3
        assert "lacks DELETE on celeriac_message" in process.lines[-1]
