"""Everything public is in the reference, and nothing is there that does not exist."""

import inspect
import re
import tomllib
from collections.abc import Iterable

import click
import pytest

import celeriac
from celeriac import Celeriac, Context, Settings, errors
from celeriac.cli.exits import Exit
from celeriac.cli.main import celeriac as command_line
from celeriac.client.task import TaskOptions
from celeriac.routing import SendOptions
from celeriac.servers.postgres import messages, tables
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.url import SCHEMES
from celeriac.servers.urls import BACKEND_SCHEMES, BROKER_SCHEMES
from celeriac.wire.names import PRIORITY_STEPS
from celeriac.worker.panel import CONTROL, INSPECT
from tests.docs.pages import ROOT
from tests.wire.test_encode_captures import INTENDED

REFERENCE = ROOT / "docs" / "reference"


def rows(page: str, table: str) -> dict[str, str]:
    """The first cell of each row, without its backticks, to the rest of it, in the table with this mark."""
    _, _, after = (REFERENCE / page).read_text().partition(f"<!-- table: {table} -->\n")
    lines = after.lstrip().split("\n\n")[0].splitlines()[2:]
    cells = [line.strip("|").split("|", 1) for line in lines]
    return {first.strip().strip("`"): rest.strip() for first, rest in cells}


def public(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_every_setting_with_its_default():
    documented = rows("settings.md", "Settings")
    assert set(documented) == set(Settings.__struct_fields__)
    defaults = Settings()
    for name, text in documented.items():
        default = text.split("|")[0].strip()
        assert default == f"`{getattr(defaults, name)!r}`".replace("'", '"'), name


def test_every_option_of_a_task():
    assert set(rows("task-options.md", "TaskOptions")) == set(TaskOptions.__struct_fields__)


def test_every_method_of_remote_control():
    for table, methods in (("inspect", INSPECT), ("control", CONTROL)):
        documented = rows("remote-control.md", table)
        assert {name.strip("` ") for names in documented for name in names.split(",")} == set(methods)


def test_every_option_of_sending():
    assert set(rows("sending.md", "SendOptions")) == set(SendOptions.__struct_fields__)


def test_every_name_of_the_package():
    assert set(rows("python.md", "__all__")) == set(celeriac.__all__)


def test_every_keyword_of_a_worker():
    parameters = inspect.signature(Celeriac.worker).parameters
    assert set(rows("python.md", "worker")) == set(parameters) - {"self"}


def test_everything_a_context_has():
    text = (REFERENCE / "context.md").read_text()
    attributes = set(rows("context.md", "Context"))
    methods = set(re.findall(r"^\| `(\w+)\(", text, re.MULTILINE))
    assert attributes | methods == {name for name in public(dir(Context)) if hasattr(Context, name)}


def test_every_error_in_its_place():
    tree = re.search(r"```text\n(.*?)```", (REFERENCE / "errors.md").read_text(), re.DOTALL)
    assert tree is not None
    above: list[str] = []
    for line in tree[1].splitlines():
        indent, name, marked = re.match(r"([│├└─ ]*)(\w+)( •)?", line).groups()  # type: ignore[union-attr]
        depth = len(indent) // 3
        del above[depth:]
        kind = getattr(errors, name)
        if above:
            assert issubclass(kind, getattr(errors, above[-1])), name
        assert bool(marked) == (name in celeriac.__all__), name
        above.append(name)
    names = set(re.findall(r"^[│├└─ ]*(\w+)", tree[1], re.MULTILINE))
    described = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    ours = {name for name in described if issubclass(getattr(errors, name), errors.CeleriacError)}
    assert names == ours


def test_every_command_option_and_exit_code():
    text = (REFERENCE / "cli.md").read_text()
    for path, command in commands(command_line, ""):
        if path:
            assert re.search(rf"\b{path}\b", text), path
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                names = "|".join(map(re.escape, parameter.opts))
                assert re.search(rf"(?<![\w-])({names})(?![\w-])", text), (path, parameter.opts)
    for code in Exit:
        assert f"| {code.value} |" in text, code


def commands(command: click.Command, path: str) -> Iterable[tuple[str, click.Command]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}".strip())


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_scheme_of_redis_urls(scheme: str):
    aliases = {"valkey+socket": "redis+socket"}
    text = (ROOT / "docs/how-to/redis-urls.md").read_text()
    assert f"{aliases.get(scheme, scheme)}://" in text


@pytest.mark.parametrize("page", ["README.md", "docs/reference/settings.md"])
def test_every_scheme_is_in_the_tables(page: str):
    text = (ROOT / page).read_text()
    assert [scheme for scheme in {*BROKER_SCHEMES, *BACKEND_SCHEMES} if f"`{scheme}://" not in text] == []


def test_every_key_of_redis():
    text = (REFERENCE / "redis-keys.md").read_text()
    values = vars(Keys("", PRIORITY_STEPS)).values()
    keys = {value for value in values if isinstance(value, str) and value}
    keys |= {key for value in values if isinstance(value, tuple) for key in value if isinstance(key, str)}
    assert len(keys) >= 6
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_every_intended_difference_on_the_wire():
    text = (REFERENCE / "wire-differences.md").read_text()
    for _, _, path in INTENDED:
        assert f"`{path.rpartition('.')[2]}`" in text, path


def test_the_layers_that_contributors_read_are_those_that_are_checked():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    said = re.search(r"## Imports point downward\n\n(.*?)\n\n", text, re.DOTALL)
    assert said is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    checked = project["tool"]["importlinter"]["contracts"][0]["layers"]
    layers = [present(re.findall(r"\w+", layer)) for layer in checked]
    assert [set(re.findall(r"`(\w+)`", part)) for part in said[1].split(">")] == [x for x in layers if x]


def present(modules: Iterable[str]) -> set[str]:
    package = ROOT / "src" / "celeriac"
    return {name for name in modules if (package / name).exists() or (package / f"{name}.py").exists()}


def test_the_glossary_has_at_most_forty_terms_and_each_once():
    glossary = (ROOT / "CONTRIBUTING.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    terms = re.findall(r"^\| ([a-z][\w -]*) \|", glossary, re.MULTILINE)[1:]
    assert 20 < len(terms) <= 40
    assert len(set(terms)) == len(terms)


def test_the_root_of_the_package_has_at_most_twelve_modules():
    assert len(list((ROOT / "src" / "celeriac").glob("*.py"))) <= 12


def test_every_file_of_the_straight_line_is_there():
    files = re.findall(r"^\| \d \| `([^`]+)`", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert len(files) == 8
    assert [file for file in files if not (ROOT / "src" / "celeriac" / file).exists()] == []


class TestPostgresTables:
    """The page of tables has what there is, and the statements that are run."""

    PAGE = (REFERENCE / "postgresql-tables.md").read_text()

    def test_every_table_and_column_stands_there(self) -> None:
        rows = [line.split("|") for line in self.PAGE.splitlines() if line.startswith("| `")]
        told = {
            cells[1].strip(" `"): set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cells[3])))
            for cells in rows
        }
        assert told == _tables()

    def test_its_statements_are_those_that_are_run(self) -> None:
        blocks = re.findall(r"```sql\n(.*?)```", self.PAGE, re.DOTALL)
        statements = messages.TAKE, messages.ACK, messages.LOOK
        assert [_flat(block) for block in blocks] == [_flat(statement) for statement in statements]


def _flat(statement: str) -> str:
    return re.sub(r"\(\s+", "(", " ".join(statement.split()))


def _tables() -> dict[str, set[str]]:
    """The columns of each table, by the SQL that makes them."""
    sql = "\n".join(tables.as_text(*tables.STEPS).values())
    found: dict[str, set[str]] = {}
    for name, body in re.findall(
        r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+) \((.*?)\)\s*(?:WITH|;)", sql, re.DOTALL
    ):
        columns = re.split(r",\s*(?![^(]*\))", body)
        found[name] = {column.split()[0] for column in columns} - {"PRIMARY", "UNIQUE"}
    for name, column in re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+) ", sql):
        found[name].add(column)
    return found
