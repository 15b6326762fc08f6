"""Apps: URLs, environment, settings, names."""

import importlib
import sys
import types
from typing import Any

import pytest

from celeriac import ArgumentError, Celeriac, ConfigError, Settings, servers
from celeriac.client.naming import task_name
from celeriac.servers.disabled import DisabledBackend
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.sqlite import SqliteBroker
from tests.client.conftest import Sent

VARIABLES = ("CELERIAC_BROKER", "CELERY_BROKER_URL", "CELERIAC_BACKEND", "CELERY_RESULT_BACKEND")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("sqlite:///shop.db", "sqlite:///shop.db")),
        ({"broker": "memory://"}, ("memory://", "memory://")),
        ({"broker": "sqlite:////tmp/x.db"}, ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db")),
        ({"broker": "redis://h"}, ("redis://h", "disabled://")),
        ({"broker": "redis://h", "backend": "redis://h/1"}, ("redis://h", "redis://h/1")),
        ({"backend": "redis://h/1"}, ("sqlite:///shop.db", "redis://h/1")),
        ({"backend": "disabled://"}, ("sqlite:///shop.db", "disabled://")),
    ],
)
def test_where_an_app_connects_to(given, expected):
    app = Celeriac("shop", **given)
    assert (app.broker_url, app.backend_url) == expected


@pytest.mark.parametrize("names", [VARIABLES[::2], VARIABLES[1::2]])
def test_the_environment_stands_in_for_what_is_not_given(monkeypatch, names):
    monkeypatch.setenv(names[0], "redis://b")
    monkeypatch.setenv(names[1], "redis://r")
    app = Celeriac("shop")
    assert (app.broker_url, app.backend_url) == ("redis://b", "redis://r")
    assert Celeriac("shop", broker="memory://").broker_url == "memory://"


def test_our_own_variable_wins(monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://theirs")
    monkeypatch.setenv("CELERIAC_BROKER", "redis://ours")
    assert Celeriac("shop").broker_url == "redis://ours"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("kafka://x", r"unknown scheme kafka:// for a broker: known are sqlite://, redis://"),
        ("localhost:6379", r"broker URL 'localhost:6379' has no scheme: known are"),
        ("sqlite://", r"names no file: write sqlite:///shop\.db"),
        ("sqlite:///:memory:", "memory://"),
        ("disabled://", "unknown scheme"),
    ],
)
def test_a_broker_that_cannot_be_is_refused_at_once(url, problem):
    with pytest.raises(ConfigError, match=problem):
        Celeriac("shop", broker=url)


def test_a_backend_that_cannot_be_is_refused_at_once():
    with pytest.raises(
        ConfigError, match=r"unknown scheme cassandra:// for a backend: known are .*db\+sqlite://"
    ):
        Celeriac("shop", broker="memory://", backend="cassandra://x")


async def test_a_missing_driver_names_the_extra(monkeypatch):
    # What is imported below stays as this attribute, without its modules, where nothing puts the first one back.
    monkeypatch.setattr(servers, "redis", importlib.import_module("celeriac.servers.redis"))
    for module in [name for name in sys.modules if name.startswith("celeriac.servers.redis")]:
        monkeypatch.delitem(sys.modules, module)
    for module in [name for name in sys.modules if name.partition(".")[0] == "hiredis"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(
        ConfigError, match=r"redis:// needs hiredis, which is not installed: pip install 'celeriac\[redis\]'"
    ):
        Celeriac("shop", broker="redis://localhost").connections()


def test_settings_are_keywords_or_one_object():
    assert Celeriac(default_queue="mine").settings.default_queue == "mine"
    assert Celeriac(settings=Settings(default_queue="mine")).settings.default_queue == "mine"
    with pytest.raises(ConfigError, match=r"settings= or single settings \(lease\), not both"):
        Celeriac(settings=Settings(), lease=5.0)
    with pytest.raises(ConfigError, match=r"unknown setting 'leese': did you mean lease\?"):
        Celeriac(leese=5.0)


async def test_adapters_get_what_is_set(tmp_path):
    app = Celeriac(broker=f"sqlite:///{tmp_path}/a.db", backend="disabled://")
    async with app:
        assert isinstance(app.connections().broker, SqliteBroker)
        assert isinstance(app.connections().backend, DisabledBackend)


async def test_a_broker_of_your_own_is_used_and_left_open():
    class Own(MemoryBroker):
        closed = False

        async def close(self):
            self.closed = True

    broker = Own()
    async with Celeriac(broker=broker, backend="disabled://") as app:
        await app.send_task("x")
        assert app.connections().broker is broker
    assert await broker.depth("celery") == 1
    assert not broker.closed


def test_a_scripts_tasks_are_named_after_its_file(monkeypatch):
    def pay():
        pass

    pay.__module__ = "__main__"
    main = types.ModuleType("__main__")
    main.__file__ = "/srv/shop/orders.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert task_name(pay) == "orders.pay"
    main.__spec__ = types.SimpleNamespace(name="shop.orders")
    assert task_name(pay) == "shop.orders.pay"
    main.__spec__ = types.SimpleNamespace(name="shop.__main__")
    assert task_name(pay) == "shop.pay"


async def test_memory_belongs_to_one_loop():
    app = Celeriac(broker="memory://")
    await app.send_task("x")
    with pytest.raises(ConfigError, match="memory:// is in use in another event loop"):
        app.delay("x")


@pytest.mark.parametrize("known", [False, True])
async def test_a_signature_spelt_as_in_celery(app: Celeriac, sent: Sent, known: bool):
    if known:
        app.register("shop.add", lambda x, y=0, **more: x + y)
    await app.signature("shop.add", args=(1,), kwargs={"y": 2}, queue="slow", shadow="s").send()
    await app.signature("shop.add", args=[4], options={"queue": "slow"}).send()
    await app.signature("shop.add", kwargs={"x": 5, "queue": "his own"}, queue="slow").send()
    assert [(m.args, m.kwargs) for m in await sent("slow")] == [
        ([1], {"y": 2}),
        ([4], {}),
        ([], {"x": 5, "queue": "his own"}),
    ]
    first = app.signature("shop.add", args=(1,), kwargs=None)
    assert (first.immutable, app.signature("shop.add", args=(), immutable=True).immutable) == (False, True)
    assert first.to_dict() == app.signature("shop.add", 1).to_dict()


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"args": "ab"}, ArgumentError, "args='ab': give a list"),
        ({"args": 5, "kwargs": {}}, ArgumentError, "args=5: give a list"),
        ({"kwargs": [1]}, ArgumentError, r"kwargs=\[1\]: give a mapping"),
        ({"args": (1,), "que": "slow"}, ConfigError, "unknown option 'que': did you mean queue"),
        ({"args": (1,), "countdown": -1}, ConfigError, "countdown=-1"),
    ],
)
def test_mistakes_in_it_are_named(app: Celeriac, given: dict[str, Any], error: type[Exception], said: str):
    with pytest.raises(error, match=said):
        app.signature("shop.add", **given)
    with pytest.raises(ArgumentError, match="not both"):
        app.signature("shop.add", 1, args=(2,))
