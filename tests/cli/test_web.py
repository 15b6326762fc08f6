"""celeriac web and top, where the history cannot be used: one line, no traceback."""

from pathlib import Path

import pytest

from tests.cli.project import Project


@pytest.fixture(params=["no database", "a directory", "no server"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "no server":
        return "postgresql://shop:secret@127.0.0.1:1/shop"
    if request.param == "a directory":
        return str(tmp_path)
    (tmp_path / "history.db").write_text("no database\n" * 100)
    return str(tmp_path / "history.db")


@pytest.mark.parametrize("command", [["web", "-p", "0"], ["top", "--once"]])
def test_a_history_that_cannot_be_used(project: Project, history: str, command: list[str]):
    project.bury("shop.gone")  # makes the file of the broker
    told = project.run(*command, "-b", project.url, "--history", history)
    assert told.exit_code == 1
    [line] = told.stderr.splitlines()
    assert line.startswith("error: the history ")
    assert "cannot be used: " in line
    assert "secret" not in line
    assert "dashboard at" not in told.stdout
