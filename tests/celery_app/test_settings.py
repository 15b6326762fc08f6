"""Celery's settings, as those of celeriac: every one classified, each with its counterpart or a word about it."""

from __future__ import annotations

import ssl
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten

from celeriac.celery_app.catalogue import HARMLESS, HONOURED, WARNED
from celeriac.celery_app.found import settings_of
from celeriac.celery_app.settings import Mapped, map_settings, unclassified
from celeriac.errors import ConfigError
from celeriac.servers.rabbitmq.protocol.url import parse_amqp_url
from celeriac.servers.redis.url import parse_redis_url

DEFAULTS: dict[str, Any] = {name: option.default for name, option in flatten(NAMESPACES)}


def mapped(**given: Any) -> Mapped:
    """Map what the ``conf`` of a real Celery app says."""
    app = Celery("shop", set_as_current=False)
    app.conf.update(given)
    return settings_of(app)


def said(found: Mapped) -> dict[str, str]:
    return {departure.about: f"{departure.level}: {departure.text}" for departure in found.departures}


def test_every_setting_of_the_installed_celery_is_classified_once() -> None:
    assert unclassified(DEFAULTS) == []
    names = [*HONOURED, *HARMLESS, *WARNED]
    assert len(names) == len(set(names))
    assert all(text for fates in (HONOURED, HARMLESS, WARNED) for text in fates.values())


def test_an_app_with_nothing_set_has_nothing_to_be_said() -> None:
    found = mapped()
    assert said(found) == {}
    assert parse_amqp_url(found.broker).nodes[0].vhost == "/"
    assert found.backend == "disabled://"
    # Celery's default: a task that dies with its worker does not run again, since it may not be idempotent.
    assert found.settings.delivery == "at_most_once"
    assert found.settings.remote_control
    assert not found.settings.strict_arguments
    assert (found.worker.pool, found.worker.concurrency) == ("processes", None)


def test_settings_that_celery_has_no_name_for() -> None:
    app = Celery("own", set_as_current=False)
    assert settings_of(app).settings.keep_failed == 10_000
    app.conf.update(celeriac_keep_failed=0, celeriac_keep_failed_days=1.5)
    found = settings_of(app)
    assert (found.settings.keep_failed, found.settings.keep_failed_days) == (0, 1.5)
    assert found.settings.max_decompressed_size == 512 * 1024 * 1024
    app.conf.update(celeriac_max_decompressed_size=1000, celeriac_max_decompressed_ratio=2)
    found = settings_of(app)
    assert (found.settings.max_decompressed_size, found.settings.max_decompressed_ratio) == (1000, 2)
    app.conf.celeriac_keep_failed = -1
    with pytest.raises(ConfigError, match="keep_failed"):
        settings_of(app)


@pytest.mark.parametrize("name", sorted(WARNED.keys() & DEFAULTS))  # older Celerys have fewer
def test_a_value_of_ones_own_is_warned_of(name: str) -> None:
    default = DEFAULTS[name]
    value = (
        not default if isinstance(default, bool) else 7 if isinstance(default, int | float) else "something"
    )
    assert said(mapped(**{name: value}))[name] == f"warn: has no effect here: {WARNED[name]}"


def test_a_setting_of_a_newer_celery_is_said_to_be_unknown() -> None:
    found = map_settings({**DEFAULTS, "worker_telepathy": True}, {**DEFAULTS, "worker_telepathy": False})
    assert "not known to this version" in said(found)["worker_telepathy"]


def test_settings_keep_their_meaning() -> None:
    settings = mapped(
        task_acks_late=True,
        task_default_queue="own",
        task_serializer="pickle",
        result_serializer="yaml",
        accept_content=["application/json", "pickle", "yaml"],
        task_protocol=1,
        task_compression="gzip",
        result_expires=timedelta(hours=2),
        result_extended=True,
        task_ignore_result=True,
        task_time_limit=30,
        task_soft_time_limit=20,
        worker_enable_remote_control=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        broker_transport_options={"visibility_timeout": 7200},
    ).settings
    assert settings.delivery == "at_least_once"
    assert settings.default_queue == "own"
    assert (settings.serializer, settings.result_serializer) == ("pickle", "yaml")
    assert settings.accept_content == ("json", "pickle", "yaml")
    assert (settings.protocol, settings.compression) == (1, "gzip")
    assert (settings.result_expires, settings.result_extended, settings.ignore_result) == (7200.0, True, True)
    assert (settings.time_limit, settings.soft_time_limit) == (30.0, 20.0)
    assert (settings.remote_control, settings.prefetch) == (False, 0)
    assert (settings.visibility_timeout, settings.send_events) == (7200.0, True)


@pytest.mark.parametrize(
    ("multiplier", "expected"), [(None, (200, 200)), (0, (200, 200)), (1, (0, 1)), (4, (200, 4))]
)
def test_what_may_be_held(multiplier, expected):
    settings = mapped(worker_prefetch_multiplier=multiplier).settings
    assert (settings.prefetch, settings.backlog) == expected


@pytest.mark.parametrize("forever", [None, 0])
def test_results_that_never_expire(forever: int | None) -> None:
    assert mapped(result_expires=forever).settings.result_expires is None


def test_the_worker_is_as_the_app_says() -> None:
    worker = mapped(
        worker_pool="threads",
        worker_concurrency="7",
        worker_max_tasks_per_child=100,
        worker_max_memory_per_child=200_000,
        worker_pool_start_method="spawn",
    ).worker
    assert (worker.pool, worker.concurrency) == ("threads", 7)
    assert (worker.max_tasks_per_child, worker.max_memory_per_child) == (100, 200_000)
    assert worker.start_method == "spawn"


@pytest.mark.parametrize(
    ("given", "about", "text"),
    [
        ({"worker_pool": "gevent"}, "worker_pool", "use -P threads"),
        ({"task_serializer": "auth"}, "task_serializer", "signs no messages"),
        ({"result_serializer": "own"}, "result_serializer", "does not know it"),
        ({"broker_url": "sqs://"}, "broker_url", "does not take from sqs://"),
        ({"broker_url": "sqla+sqlite:///x.db"}, "broker_url", "does not take from sqla+sqlite://"),
    ],
)
def test_what_would_do_harm_is_refused(given: dict[str, Any], about: str, text: str) -> None:
    found = said(mapped(**given))[about]
    assert found.startswith("refuse: ")
    assert text in found


@pytest.mark.parametrize("option", [{"sep": ":"}, {"priority_steps": [0, 5]}])
def test_lists_that_would_not_be_found_are_refused(option: dict[str, Any]) -> None:
    found = said(mapped(broker_url="redis://", broker_transport_options=option))
    assert "would not be found" in found["broker_transport_options"]


def test_a_serializer_that_is_written_but_not_read() -> None:
    found = mapped(task_serializer="pickle", accept_content=["json"])
    assert found.settings.accept_content == ("json", "pickle")
    assert "pickle is read too" in said(found)["accept_content"]


def test_unknown_options_are_told_and_those_about_connections_are_not() -> None:
    options = {"socket_timeout": 3, "health_check_interval": 5, "own": 1}
    found = said(mapped(broker_url="redis://", broker_transport_options=options))
    assert found == {"broker_transport_options": "warn: 'own' in it has no effect: take it out"}


def test_a_value_that_is_no_number() -> None:
    with pytest.raises(ConfigError, match="worker_concurrency='many' is not a number"):
        mapped(worker_concurrency="many")


# --- URLs


def test_a_password_that_kombu_takes_unquoted_is_quoted() -> None:
    target = parse_redis_url(mapped(broker_url="redis://:p@ss:w%3Ford@cache:6380/3").broker)
    assert (target.addresses, target.password, target.db) == ((("cache", 6380),), "p@ss:w?ord", 3)


@pytest.mark.parametrize("name", ["broker_url", "result_backend"])
@pytest.mark.parametrize(
    "login", [f":12{sign}S3CRET" for sign in "/?#["] + [":S3/CRET", "me:S3#CRET", "me:S3[x"]
)
def test_a_password_that_kombu_takes_for_a_host_is_refused_and_not_shown(name: str, login: str) -> None:
    with pytest.raises(ConfigError) as raised:
        mapped(**{name: f"redis://{login}@cache:6380/3"})
    text = f"{raised.value!r} {raised.value.__cause__!r}"
    assert f"{name}: redis://***@cache:6380/3: in user, password" in text
    assert "S3" not in text


def test_what_celery_reads_with_an_at_sign_is_read() -> None:
    assert (
        parse_redis_url(mapped(broker_url="redis://cache/3?client_name=me@here").broker).client_name
        == "me@here"
    )
    assert mapped(broker_url="amqp://me:x@rabbit/shop@home").broker.startswith(
        "amqp://me:x@rabbit/shop%40home"
    )
    assert (
        parse_redis_url(mapped(result_backend="redis+socket:///run/a@b.sock").backend).path == "/run/a@b.sock"
    )


def test_redis_with_tls_prefix_and_name() -> None:
    found = mapped(
        broker_url="redis://:pw@cache//2",
        broker_transport_options={"global_keyprefix": "shop:"},
        broker_use_ssl={
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_ca_certs": "/etc/ca.pem",
            "ssl_certfile": "/etc/my.pem",
            "ssl_keyfile": "/etc/my.key",
        },
        result_backend="rediss://cache/1?ssl_cert_reqs=CERT_NONE",
    )
    target = parse_redis_url(found.broker)
    assert target.tls is not None
    assert (target.key_prefix, target.db, target.tls["ssl_cert_reqs"]) == ("shop:", 2, "required")
    assert target.tls["ssl_ca_certs"] == "/etc/ca.pem"
    assert target.tls["ssl_keyfile"] == "/etc/my.key"
    results = parse_redis_url(found.backend)
    assert results.tls is not None
    assert (results.tls["ssl_cert_reqs"], results.key_prefix, results.db) == ("none", "", 1)


def test_sentinels() -> None:
    options = {"master_name": "shop", "sentinel_kwargs": {"password": "s3"}}
    found = mapped(
        broker_url="sentinel://:pw@one:26379;sentinel://:pw@two:26379/4", broker_transport_options=options
    )
    target = parse_redis_url(found.broker)
    assert target.addresses == (("one", 26379), ("two", 26379))
    assert (target.master, target.sentinel_password, target.password, target.db) == ("shop", "s3", "pw", 4)


def test_a_unix_socket() -> None:
    target = parse_redis_url(mapped(broker_url="redis+socket:///run/redis/redis.sock?virtual_host=2").broker)
    assert (target.path, target.db) == ("/run/redis/redis.sock", 2)


def test_nodes_of_one_rabbitmq() -> None:
    found = mapped(
        broker_url=["amqp://me:pw@one/shop", "amqp://me:pw@two:5673/shop"],
        broker_heartbeat=20,
        broker_use_ssl={"ca_certs": "/etc/ca.pem", "cert_reqs": ssl.CERT_REQUIRED},
        result_backend="rpc://",
    )
    target = parse_amqp_url(found.broker)
    assert [(node.host, node.port, node.vhost) for node in target.nodes] == [
        ("one", 5671, "shop"),
        ("two", 5673, "shop"),
    ]
    assert target.heartbeat == 20
    assert target.tls == {"ssl_ca_certs": "/etc/ca.pem", "ssl_cert_reqs": "required"}
    assert found.backend == "rpc:///"


def test_a_broker_in_parts() -> None:
    found = mapped(
        broker_transport="redis",
        broker_host="cache",
        broker_port=6380,
        broker_vhost="5",
        broker_password="pw",
    )
    target = parse_redis_url(found.broker)
    assert (target.addresses, target.db, target.password) == ((("cache", 6380),), 5, "pw")


def test_brokers_to_read_from_and_to_write_to() -> None:
    found = mapped(broker_read_url="redis://one", broker_write_url="redis://two")
    assert parse_redis_url(found.broker).addresses == (("one", 6379),)
    assert said(found)["broker_write_url"].startswith(
        "warn: retries, callbacks and next steps of a chain go to"
    )
    assert said(mapped(broker_read_url="redis://one", broker_write_url="redis://one")) == {}


def test_results_in_parts() -> None:
    found = mapped(result_backend="redis", redis_host="cache", redis_port=6380, redis_db=5)
    target = parse_redis_url(found.backend)
    assert (target.addresses, target.db) == ((("cache", 6380),), 5)


def test_stores_that_only_celery_knows() -> None:
    assert mapped(result_backend="mongodb://host/db").backend == ""
    assert mapped(result_backend="django-db").backend == ""
    assert mapped(result_backend="db+sqlite:///results.db").backend == "db+sqlite:///results.db"
    renamed = {"task": "own_taskmeta", "group": "own_groupmeta"}
    assert mapped(result_backend="db+sqlite:///results.db", database_table_names=renamed).backend == ""


REDIS_TWICE = ["redis://one", "redis://two"]


@pytest.mark.parametrize(
    ("urls", "taken"),
    [
        (REDIS_TWICE, "redis://one/"),
        (";".join(REDIS_TWICE), "redis://one/"),
        (["amqp://one", "redis://two"], "amqp://one/"),
        (["amqp://one", "pyamqp://two", "redis://three"], "amqp://one/;amqp://two/"),
        (["sqlite:///one.db", "redis://two"], "sqlite:///one.db"),
        (["postgresql://one/x", "postgresql://two/x"], "postgresql://one/x"),
    ],
)
def test_servers_after_the_first_are_said_not_to_be_used(urls: str | list[str], taken: str) -> None:
    found = mapped(broker_url=urls)
    assert found.broker.partition("?")[0] == taken
    assert "the first alone" in said(found)["broker_url"]
    assert "start a worker with -b for each" in said(found)["broker_url"]


def test_of_servers_for_results_the_first_is_used() -> None:
    found = mapped(result_backend=";".join(REDIS_TWICE))
    assert parse_redis_url(found.backend).addresses == (("one", 6379),)
    assert "the first alone; for failover of one Redis name its sentinels" in said(found)["result_backend"]


def test_nodes_of_one_rabbitmq_and_sentinels_of_one_redis_are_one_server() -> None:
    assert said(mapped(broker_url=["amqp://one", "amqp://two", "three"])) == {}
    options = {"master_name": "shop"}
    found = mapped(broker_url="sentinel://one;sentinel://two", broker_transport_options=options)
    assert said(found) == {}
    assert len(parse_redis_url(found.broker).addresses) == 2
