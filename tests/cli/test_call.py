"""celeriac call, and celeriac result."""

import json
import re
import signal
import uuid

import pytest

from celeriac.cli.call import read_argument
from celeriac.errors import ConfigError
from tests.cli.project import Project


def test_call_prints_the_id_and_result_tells_the_rest(shop: Project):
    sent = shop.run("-A", shop.module, "call", "shop.add", "2", "3")
    assert sent.exit_code == 0
    task_id = sent.stdout.strip()
    assert str(uuid.UUID(task_id)) == task_id
    told = shop.run("result", "-A", shop.module, task_id, "--wait")
    assert told.exit_code == 0
    assert "SUCCESS" in told.stdout
    assert "shop.add" in told.stdout


def test_call_waits_for_the_value(shop: Project):
    ended = shop.run("call", "-A", shop.module, "shop.greet", "Ada", "-k", '{"lang": "fr"}', "--wait")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout) == {"hello": "Ada", "lang": "fr"}
    sent, *waits = ended.stderr.splitlines()
    assert sent == f"sent to {shop.file}"
    assert all(" waits" in line for line in waits)  # told where it takes long


def test_call_without_code(shop: Project):
    ended = shop.run("call", "-b", shop.url, "--backend", shop.url, "shop.add", "2", "-3", "--timeout", "10")
    assert (ended.exit_code, ended.stdout) == (0, "-1\n")


def test_arguments_as_one_list(shop: Project):
    assert shop.run("call", "-A", shop.module, "shop.add", "-a", "[20, 3]", "--wait").stdout == "23\n"


def test_failed_task_shows_its_traceback_and_ends_with_1(shop: Project):
    ended = shop.run("call", "-A", shop.module, "shop.boom", "--wait")
    assert ended.exit_code == 1
    assert ended.stdout == ""
    assert "in boom" in ended.stderr
    assert ended.stderr.splitlines()[-1].endswith("failed: ValueError: no such thing")


def test_progress_is_shown_while_it_runs(shop: Project):
    ended = shop.run("call", "-A", shop.module, "shop.climb", "3", "--wait")
    assert ended.stdout == '"up"\n'
    assert "/3 step " in ended.stderr


def test_timeout_ends_with_4_and_says_how_to_go_on(shop: Project):
    ended = shop.run("call", "-A", shop.module, "shop.add", "1", "2", "-Q", "nobody", "--timeout", "0.2")
    assert ended.exit_code == 4
    assert "last seen PENDING: no worker has reported on it" in ended.stderr


def test_wrong_arguments_are_refused_before_sending(shop: Project):
    ended = shop.run("call", "-A", shop.module, "shop.add", "1", "two")
    assert ended.exit_code == 2
    assert "argument 'y': expected int" in ended.stderr


def test_mistyped_name_is_noted(shop: Project):
    ended = shop.run("call", "-A", shop.module, "shop.addd", "1", "-Q", "nobody")
    assert ended.exit_code == 0
    assert "did you mean shop.add?" in ended.stderr


def test_mistyped_option_is_no_argument(shop: Project):
    ended = shop.run("call", "-A", shop.module, "shop.add", "1", "--quue", "x")
    assert ended.exit_code == 2
    assert "Did you mean '--queue'?" in ended.stderr


def test_wait_without_a_backend_is_refused_before_sending(shop: Project):
    ended = shop.run("call", "-b", "redis://127.0.0.1:1", "shop.add", "--wait")
    assert ended.exit_code == 2
    assert "--backend URL" in ended.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1.5", -1.5),
        ("null", None),
        ("true", True),
        ('"3"', "3"),
        ("Ada", "Ada"),
        ("[1, 2]", [1, 2]),
        ("", ""),
    ],
)
def test_argument(text: str, value: object):
    assert read_argument(text) == value


def test_after_two_dashes_nothing_is_an_option(shop: Project):
    for text, value in (("-5", -5), ("-x", "-x"), ("--wait", "--wait"), ("--", "--")):
        queue = f"dashes-{uuid.uuid4().hex}"
        sent = shop.run("call", "-A", shop.module, "shop.any", "-Q", queue, "--", text)
        assert sent.exit_code == 0, sent.output
        [waiting] = json.loads(shop.run("queues", "peek", queue, "--json", "-A", shop.module).stdout)
        assert waiting["arguments"] == f"({value!r})"
        assert ("--wait stands after --, so the task gets it" in sent.stderr) == (text == "--wait")
    one_before = shop.run("call", "-A", shop.module, "shop.greet", "-x", "--", "-5")
    assert one_before.exit_code == 2


def test_argument_that_only_begins_as_json():
    with pytest.raises(ConfigError, match="is no JSON"):
        read_argument("{lang: en}")


def test_result_of_a_failed_task(shop: Project):
    task_id = shop.run("call", "-A", shop.module, "shop.boom").stdout.strip()
    told = shop.run("result", "-A", shop.module, task_id, "--wait")
    assert told.exit_code == 1
    assert "ValueError: no such thing" in told.stdout
    assert "in boom" in told.stdout
    assert "in boom" in shop.run("result", "-A", shop.module, task_id, "--traceback").stdout
    record = json.loads(shop.run("result", "-A", shop.module, task_id, "--json").stdout)
    assert (record["status"], record["result"]["exc_type"]) == ("FAILURE", "ValueError")


def test_result_that_is_not_there(shop: Project):
    told = shop.run("result", "-A", shop.module, "nobody")
    assert told.exit_code == 4
    assert "PENDING" in told.stdout


def test_result_without_a_backend(shop: Project):
    told = shop.run("result", "-b", "redis://127.0.0.1:1", "x")
    assert told.exit_code == 2
    assert "--backend URL" in told.stderr


def test_interrupted_wait_says_how_to_go_on(shop: Project):
    waiting = shop.start("call", "-A", shop.module, "shop.climb", "100", "--wait")
    waiting.wait_for("/100 step")
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait() == 130
    task_id = re.search(r"interrupted; .* celeriac -A \S+ result (\S+) --wait", waiting.output)
    assert task_id is not None
    assert shop.run("result", "-A", shop.module, task_id[1]).exit_code == 4
