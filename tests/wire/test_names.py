"""Key names, held against those of a real Celery and kombu."""

import pytest
from kombu.transport import redis as kombu_redis

from celeriac.wire import names
from tests.wire.captures import all_captured, load


def test_priority_keys_are_those_that_kombu_uses():
    channel = object.__new__(kombu_redis.Channel)  # only its naming is asked for, no connection
    for priority in range(10):
        assert names.priority_key("q", priority) == channel._q_for_pri("q", priority)
    assert names.priority_key("q", -3) == "q"
    assert names.priority_key("q", 300) == channel._q_for_pri("q", 9)
    assert tuple(channel.priority_steps) == names.PRIORITY_STEPS
    assert names.queue_keys("q") == [channel._q_for_pri("q", step) for step in channel.priority_steps]


def test_captured_messages_went_to_the_lists_that_we_name():
    compared = 0
    for message in all_captured("msg.priority.*.redis"):
        keys = load(message.name).get("keys")
        if keys:
            assert keys == [names.priority_key("celery", 5)]
            compared += 1
    assert compared


def test_bindings_are_written_as_kombu_writes_them():
    fixture = load("msg.args.celery57-v2.redis")["bindings"]
    member = names.binding_member("celery", "", "celery")
    assert fixture == {
        names.binding_key("celery"): [member],
        names.permanent_binding_key("celery"): [member],
    }
    assert names.split_binding(member) == ("celery", "", "celery")
    assert names.split_binding("something else") is None


def test_prefixes_are_put_as_broker_and_backend_each_put_them():
    keys = load("keyprefix.redis")["raw"]
    assert names.broker_key("pfx:", names.binding_key("celery")) in keys
    assert names.broker_key("pfx:", names.priority_key("celery", 3)) in keys
    assert names.backend_prefix("rpfx") + names.result_key("kp") in keys


@pytest.mark.parametrize(
    ("prefix", "written"),
    [("", ""), ("a", "a_"), ("a:", "a:"), ("a_", "a_"), ("a-", "a-"), ("a.", "a."), ("a/", "a/_")],
)
def test_a_backend_prefix_ends_in_a_separator(prefix: str, written: str):
    assert names.backend_prefix(prefix) == written


def test_own_steps_are_honoured():
    assert names.queue_keys("q", (0, 5)) == ["q", "q\x06\x165"]
    assert names.priority_key("q", 9, (0, 5)) == "q\x06\x165"


def test_text_with_a_lone_surrogate_is_no_text():
    assert names.is_text("héllo")
    assert not names.is_text("a\ud800")


def test_result_and_group_keys():
    assert names.result_key("i") == "celery-task-meta-i"
    assert names.group_key("g") == "celery-taskset-meta-g"
