"""``celeriac migrate`` and ``doctor`` on PostgreSQL, and what the other commands show of it."""

from click.testing import CliRunner

from celeriac.cli.main import celeriac
from tests.servers import PostgresServer


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(celeriac, [*arguments])
    code = done.exception.code if isinstance(done.exception, SystemExit) else done.exit_code
    return code, done.output


def test_the_tables_are_made_once_and_serve_a_role_that_may_make_none(
    postgres_server: PostgresServer, postgres_schema: str
):
    owner = postgres_server.url(postgres_schema)
    guest = postgres_server.url(postgres_schema, user="guest")
    code, text = run("-b", guest, "doctor")
    assert (code, "celeriac migrate" in text) == (1, True)
    code, text = run("-b", owner, "migrate")
    assert (code, "queues 1" in text and "results 1" in text) == (0, True)
    assert run("-b", owner, "migrate") == (0, "all tables are up to date\n")
    code, text = run("-b", guest, "doctor")
    assert code == 0, text
    assert "PostgreSQL" in text
    assert run("-b", guest, "call", "shop.add", "1", "2")[0] == 0
    assert run("-b", guest, "call", "shop.add", "1", "--countdown", "3600")[0] == 0
    assert run("-b", guest, "queues", "--json")[1] == '{"celery":1}\n'
    assert "shop.add" in run("-b", guest, "queues", "scheduled")[1]
    assert run("-b", guest, "dead")[0] == 0


def test_the_printed_tables_are_those_that_are_made(postgres_server: PostgresServer, postgres_schema: str):
    url = postgres_server.url(postgres_schema)
    code, text = run("-b", url, "migrate", "--print")
    assert code == 0
    with postgres_server.client(postgres_schema) as connection:
        connection.execute(text)
    assert run("-b", url, "migrate") == (0, "all tables are up to date\n")


def test_other_servers_have_no_tables_to_make(tmp_path):
    assert run("-b", f"sqlite:///{tmp_path}/shop.db", "migrate")[0] == 2
