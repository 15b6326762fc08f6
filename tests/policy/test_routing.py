"""Where calls go."""

from datetime import UTC, datetime

import pytest

from celeriac import ConfigError, Retry
from celeriac.routing import NO_OPTIONS, Routes, SendOptions, route, send_options
from celeriac.wire.envelope import Route


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Route("celery", "", "celery")),
        ({"queue": "slow"}, Route("slow", "", "slow")),
        ({"routing_key": "slow"}, Route("slow", "", "slow")),
        ({"queue": "slow", "routing_key": "slow"}, Route("slow", "", "slow")),
        # Celery: a queue's exchange has the queue's name.
        ({"queue": "slow", "routing_key": "other"}, Route("other", "slow", "slow")),
        ({"exchange": "news", "routing_key": "news.sport"}, Route("news.sport", "news", None)),
        ({"exchange": "news", "queue": "inbox"}, Route("inbox", "news", "inbox")),
        ({"exchange": "news"}, Route("celery", "news", None)),
        ({"exchange": "", "routing_key": "slow"}, Route("slow", "", None)),
    ],
)
def test_route(options, expected):
    assert route(SendOptions(**options), "celery") == expected


def test_the_first_pattern_that_matches_wins():
    routes = Routes({"shop.orders.*": "orders", "shop.*": {"queue": "shop", "priority": 3}, "*": "rest"})
    assert routes.match("shop.orders.pay").queue == "orders"
    assert routes.match("shop.visit") == SendOptions(queue="shop", priority=3)
    assert routes.match("mail.send").queue == "rest"


def test_no_pattern_no_options():
    assert Routes({"shop.*": "shop"}).match("shopping.list") is NO_OPTIONS


def test_a_pattern_matches_the_whole_name():
    assert Routes({"add": "sums"}).match("add_all") is NO_OPTIONS


@pytest.mark.parametrize("to", [{"que": "x"}, {"priority": "high"}, 7, ""])
def test_a_route_that_cannot_be_used_is_named(to):
    with pytest.raises(ConfigError, match=r"pattern 'shop\.\*'"):
        Routes({"shop.*": to})


def test_options_of_the_call_win_one_by_one():
    merged = SendOptions(priority=0, countdown=5).over(SendOptions(priority=9, serializer="yaml"))
    assert merged == SendOptions(priority=0, countdown=5, serializer="yaml")


def test_a_destination_is_taken_whole():
    defaults = SendOptions(exchange="news", routing_key="sport", priority=4)
    assert SendOptions(queue="slow").over(defaults) == SendOptions(queue="slow", priority=4)


def test_false_is_a_choice():
    assert SendOptions(ignore_result=False).over(SendOptions(ignore_result=True)).ignore_result is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": ""},
        {"queue": 5},
        {"priority": "high"},
        {"priority": -1},
        {"priority": True},
        {"countdown": "10"},
        {"countdown": float("nan")},
        {"countdown": float("-inf")},
        {"countdown": 1e12},
        {"expires": 1e300},
        {"time_limit": -1},
        {"time_limit": 0},
        {"soft_time_limit": float("inf")},
        {"ignore_result": "no"},
        {"shadow": 5},
        {"link": 5},
        {"link": "shop.add"},
        {"link_error": {"name": "shop.add"}},
        {"link_error": [{"task": None}]},
        {"eta": 5},
        {"eta": datetime(2030, 1, 1)},
        {"expires": "soon"},
        {"expires": datetime(2030, 1, 1)},
        {"protocol": 3},
        {"retry": True},
        {"headers": [("a", 1)]},
        {"task_id": ""},
    ],
)
def test_a_bad_option_is_named_with_its_value(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ConfigError) as refused:
        send_options(wrong)
    assert f"option {name}={value!r}" in str(refused.value)


def test_good_options_pass():
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    options = {
        "eta": moment,
        "expires": 10,
        "priority": 9,
        "protocol": 1,
        "retry": Retry(),
        "headers": {"a": 1},
    }
    assert send_options(options).eta == moment


def test_an_unknown_option_is_answered_with_the_nearest_known():
    with pytest.raises(ConfigError, match=r"unknown option 'count_down': did you mean countdown\?"):
        send_options({"count_down": 3})
