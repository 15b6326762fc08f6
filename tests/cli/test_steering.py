"""`celeriac status`, `inspect` and `control`: as Celery's, beside Celery's worker and its command line."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from celery.worker.control import Panel
from click.testing import CliRunner

from celeriac import Celeriac
from celeriac.cli.main import celeriac
from celeriac.cli.methods import CONTROL, INSPECT
from tests.cli.project import Project
from tests.docs.pages import ROOT
from tests.servers import LoggedProcess, RabbitServer, RedisServer

PATIENCE = "20"
"""Seconds to wait for an answer, which is waited for in vain by no line here."""

BOTH_ALIKE = [
    ["status"],
    ["inspect", "ping"],
    ["inspect", "active"],
    ["inspect", "active_queues"],
    ["inspect", "registered"],
    ["inspect", "registered", "rate_limit"],
    ["inspect", "reserved"],
    ["inspect", "revoked"],
    ["inspect", "query_task", "nosuch", "other"],
    ["inspect", "conf"],
    ["inspect", "conf", "true"],
    ["inspect", "report"],
    ["control", "time_limit", "celery.chord", "10", "20"],
    ["control", "time_limit", "nosuch.task", "1"],
    ["control", "rate_limit", "nosuch.task", "10/m"],
    ["control", "add_consumer", "slow", "slow", "direct", "slow"],
    ["control", "cancel_consumer", "slow"],
    ["control", "autoscale", "3", "1"],
    ["control", "pool_restart"],
    ["control", "revoke"],
]
"""Lines that change nothing twice, and to which the same worker answers the same."""


AS_JSON = [
    ["status"],
    ["inspect", "active_queues"],
    ["inspect", "conf"],
    ["control", "time_limit", "nosuch", "1"],
]


@dataclass(frozen=True)
class Fleet:
    """A Celery worker and one of celeriac's."""

    url: str
    nodes: list[str]
    celery: LoggedProcess

    def lines(self, lines: Sequence[Sequence[str]]) -> list[list[str]]:
        """Each line for these nodes alone."""
        return [[*line, "-d", ",".join(self.nodes), "-t", PATIENCE] for line in lines]


@contextmanager
def fleet(url: str) -> Iterator[Fleet]:
    stem = uuid.uuid4().hex[:8]
    nodes = [f"celery-{stem}@here", f"ours-{stem}@here"]
    environment = {
        "INTEROP_BROKER": url,
        "INTEROP_BACKEND": "cache+memory://",
        "INTEROP_QUEUE": f"queue-{stem}",
        "C_FORCE_ROOT": "1",
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.interop.celery_side", "worker", "-P", "solo"]
    command += ["-n", nodes[0], "-l", "INFO", "--without-gossip", "--without-mingle"]
    celery = LoggedProcess(command, env={**environment}, cwd=ROOT)
    app = Celeriac("steered", url, "disabled://", default_queue=f"queue-{stem}", remote_control=True)
    worker = app.worker(name=nodes[1])
    worker.start()
    try:
        celery.wait_for(f"{nodes[0]} ready.")
        yield Fleet(url, nodes, celery)
    finally:
        worker.stop()
        if celery.running:
            celery.kill()


@pytest.fixture(params=["redis", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "redis":
        with RedisServer() as server:
            yield server.url()
    else:
        rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
        yield rabbit.url()


def celerys_own(url: str, lines: list[list[str]]) -> list[tuple[int, str, str]]:
    given = json.dumps([["-b", url, *line] for line in lines])
    ended = subprocess.run(
        [sys.executable, "-m", "tests.cli.celery_lines"],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=150,
    )
    assert ended.returncode == 0, ended.stderr
    results = [tuple(result) for result in json.loads(ended.stdout.splitlines()[-1])]
    assert len(results) == len(lines), (lines[len(results) - 1], results[-1])
    return results


def by_node(text: str, nodes: list[str]) -> list[str]:
    """The parts of an output, in the order of the nodes: Celery prints what answers first first."""
    answers, _, count = text.partition("\n\n") if text.endswith(" online.\n") else (text, "", "")
    parts = [part.rstrip("\n") for part in answers.split("->  ")]
    return [*sorted(parts, key=lambda part: [part.startswith(node) for node in nodes]), count]


def test_they_print_what_celery_prints(project: Project, url: str) -> None:
    with fleet(url) as there:
        [everybody] = there.lines([["status"]])
        seen = project.run("-b", url, *everybody)
        assert (seen.exit_code, seen.stderr) == (0, ""), there.celery.output
        # What a worker answers is the same on every broker: RabbitMQ is tried with some.
        alike = BOTH_ALIKE if url.startswith("redis") else BOTH_ALIKE[::4]
        texts, objects = there.lines(alike), [[*line, "-j"] for line in there.lines(AS_JSON)]
        printed = celerys_own(url, [*texts, *objects, ["status", "-d", "nosuch@here", "-t", "0.1"]])
        for line, (code, output, _) in zip(texts, printed, strict=False):
            ended = project.run("-b", url, *line)
            assert by_node(ended.stdout, there.nodes) == by_node(output, there.nodes), line
            assert (ended.exit_code, ended.stderr) == (code, ""), line
        for line, (code, output, _) in zip(objects, printed[len(texts) :], strict=False):
            ended = project.run("-b", url, *line)
            # `celery status -j` adds a line that is no JSON.
            assert in_any_order(ended.stdout) == in_any_order(output.splitlines()[0]), line
            assert (ended.exit_code, ended.stderr) == (code, ""), line

        ended = project.run("-b", url, "status", "-d", "nosuch@here", "-t", "0.1")
        assert (ended.exit_code, ended.stdout) == (printed[-1][0], "")
        assert ended.exit_code == 69

        some = project.run("-b", url, "status", "-j", "-t", "1", "--pattern", f"{there.nodes[1][:12]}*")
        assert list(json.loads(some.stdout)) == there.nodes[1:]
        mistyped = there.nodes[0].replace("celery", "celry")
        ended = project.run(
            "-b", url, "inspect", "ping", "-j", "-t", "1", "-d", f"{there.nodes[1]},{mistyped}"
        )
        assert (ended.exit_code, list(json.loads(ended.stdout))) == (0, there.nodes[1:])
        assert f"no answer within 1 s: {mistyped}; did you mean {there.nodes[0]}?" in ended.stderr

        ended = project.run("-b", url, "control", "shutdown", "-d", ",".join(there.nodes), "-t", PATIENCE)
        assert (ended.exit_code, ended.stderr) == (0, "")
        assert ended.stdout.splitlines() == [
            f"->  {there.nodes[0]}: OK",
            "        shutting down",
            f"->  {there.nodes[1]}: OK",
            "        shutting down",
        ]
        assert there.celery.wait() == 0


def in_any_order(text: str) -> object:
    value = json.loads(text)
    return sorted(value, key=list) if isinstance(value, list) else value


def test_the_methods_are_those_of_celerys_panel() -> None:
    for kind, ours in (("inspect", INSPECT), ("control", CONTROL)):
        panel = {name: one for name, one in Panel.meta.items() if one.type == kind and one.visible}
        assert list(ours) == sorted(panel)
        for name, one in panel.items():
            assert [argument for argument, _ in ours[name].args] == [
                argument for argument, _ in one.args or ()
            ], name
            assert (ours[name].rest or None) == one.variadic, name
            assert bool(ours[name].usage) == bool(one.signature), name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["inspect", "actve"], "there is no method actve; did you mean active?"),
        (["inspect", "active-queues"], "did you mean active_queues?"),
        (["inspect", "shutdown"], "shutdown is a method of another command: celeriac control shutdown"),
        (["control", "active"], "celeriac inspect active"),
        (["control", "zzz"], "there is no method zzz; known are add_consumer, autoscale"),
        (["inspect", "ping", "x"], "ping takes no arguments"),
        (["control", "cancel_consumer"], "cancel_consumer takes QUEUE"),
        (["control", "pool_grow", "many"], "pool_grow: 'many' is no n"),
        (["inspect", "conf", "perhaps"], "conf: 'perhaps' is no with_defaults: give true or false"),
        (["status", "-d", "a@b", "--pattern", "*"], "give -d or --pattern, not both"),
        (["inspect", "ping", "--jsn"], "--json"),
        (["status", "-t", "0"], "0.0 is not in the range"),
    ],
)
def test_what_is_mistyped_is_told_before_anybody_is_asked(
    project: Project, line: list[str], said: str
) -> None:
    ended = project.run("-b", "redis://127.0.0.1:1", *line)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_the_list_of_methods_asks_nobody(project: Project) -> None:
    for command, methods in (("inspect", INSPECT), ("control", CONTROL)):
        ended = project.run(command, "--list")
        assert ended.exit_code == 0
        assert [line.split()[0] for line in ended.stdout.splitlines()] == list(methods)


@pytest.mark.parametrize("line", [["status"], ["inspect", "ping", "-j"], ["control", "shutdown"]])
def test_a_broker_that_is_away_is_told_apart(project: Project, line: list[str]) -> None:
    ended = project.run("-b", "redis://127.0.0.1:1", *line)
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "127.0.0.1:1" in ended.stderr


def test_on_a_file(project: Project) -> None:
    app = Celeriac("shop", project.url, remote_control=True)
    workers = [app.worker(name=name) for name in ("one@here", "two@here")]
    missing = project.run("-b", project.url, "status")
    assert (missing.exit_code, "names no file that exists" in missing.stderr) == (2, True)
    for worker in workers:
        worker.start()
    seen = project.run("-b", project.url, "status", "-t", PATIENCE)
    assert seen.stdout == "->  one@here: OK\n->  two@here: OK\n\n2 nodes online.\n"
    completed = complete(project, f"celeriac -b {project.url} inspect ping -d tw")
    assert completed == ["plain,two@here"]
    assert complete(project, f"celeriac queues peek -b {project.url} ce") == ["plain,celery"]
    told = project.run("-b", project.url, "control", "shutdown", "-j", "-t", PATIENCE)
    assert json.loads(told.stdout) == [{name: {"ok": "shutting down"}} for name in ("one@here", "two@here")]
    for worker in workers:
        worker.stop()
    nobody = project.run("-b", project.url, "status", "-t", PATIENCE)
    assert (nobody.exit_code, nobody.stdout) == (69, "")
    assert "no worker listens" in nobody.stderr


def test_over_postgresql(project: Project, postgres_url: str) -> None:
    app = Celeriac("shop", postgres_url, remote_control=True, default_queue="shop")
    workers = [app.worker(name=name) for name in ("one@here", "two@here")]
    for worker in workers:
        worker.start()
    try:
        seen = project.run("-b", postgres_url, "status", "-t", PATIENCE)
        assert seen.stdout == "->  one@here: OK\n->  two@here: OK\n\n2 nodes online.\n"
        asked = project.run("-b", postgres_url, "inspect", "active_queues", "-j", "-t", PATIENCE)
        taken = {
            name: [queue["name"] for queue in queues] for name, queues in json.loads(asked.stdout).items()
        }
        assert taken == {"one@here": ["shop"], "two@here": ["shop"]}
        told = project.run("-b", postgres_url, "control", "shutdown", "-j", "-t", PATIENCE)
        assert json.loads(told.stdout) == [
            {name: {"ok": "shutting down"}} for name in ("one@here", "two@here")
        ]
    finally:
        for worker in workers:
            worker.stop()
    nobody = project.run("-b", postgres_url, "status", "-t", PATIENCE)
    assert (nobody.exit_code, nobody.stdout) == (69, "")
    assert "no worker listens" in nobody.stderr


def test_words_are_completed_in_the_shell(project: Project) -> None:
    assert [line.partition(",")[2] for line in complete(project, "celeriac st")] == ["status"]
    assert complete(project, "celeriac inspect act") == ["plain,active", "plain,active_queues"]
    assert complete(project, "celeriac -b redis://127.0.0.1:1 status -d x") == []


def complete(project: Project, line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    variables = {
        "_CELERIAC_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    ended = CliRunner(env=variables).invoke(celeriac, [], prog_name="celeriac")
    return ended.stdout.split()
