"""celeriac demo, as somebody runs it who has nothing but the package."""

import re

import pytest

from tests.cli.project import Project
from tests.servers import RedisServer


def check(output: str) -> None:
    assert "512 tasks sent" in output
    assert "512 of 512 done" in output
    for kind, succeeded in (
        ("async", 300),
        ("plain function", 60),
        ("CPU-bound", 30),
        ("fails, retried", 10),
        ("later", 10),
    ):
        assert re.search(rf"^ {kind} .* {succeeded} ", output, re.MULTILINE), kind
    assert re.search(r"fails for good .* 1 .*ZeroDivisionError: division by zero", output)
    assert "answered at attempt 3" in output
    assert "export reports 500 of 1000" in output
    assert re.search(r"^[\d,]+ tasks/s: 2,000 more", output, re.MULTILINE)
    assert "celeriac -A shop worker" in output


def test_on_a_file(project: Project, monkeypatch: pytest.MonkeyPatch):
    scratch = project.directory / "scratch"
    scratch.mkdir()
    project.env = {"TMPDIR": str(scratch)}
    process = project.start("demo")
    assert process.wait(timeout=60) == 0, process.output
    check(process.output)
    assert list(scratch.iterdir()) == []
    assert {path.name for path in project.directory.iterdir()} <= {
        "scratch",
        f"{project.module}.py",
        "__pycache__",
    }


def test_on_redis(project: Project, redis_server: RedisServer):
    process = project.start("demo", "--broker", redis_server.url(9))
    assert process.wait(timeout=60) == 0, process.output
    check(process.output)
    with redis_server.client(9) as client:
        left = set(client.keys("*"))
    assert not [key for key in left if key.startswith(b"celery-task-meta-")]


def test_on_a_dead_redis(project: Project):
    ended = project.run("demo", "-b", "redis://127.0.0.1:1")
    assert ended.exit_code == 3
    assert ended.stderr.count("\n") == 1
