"""The grammar of AMQP URLs."""

import pytest
from rich.pretty import pretty_repr

from celeriac.errors import ConfigError
from celeriac.servers.rabbitmq.protocol.url import AmqpTarget, Node, parse_amqp_url


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("amqp://", AmqpTarget(nodes=(Node(),))),
        ("amqp://localhost//", AmqpTarget(nodes=(Node(),))),
        ("amqp://localhost/%2F", AmqpTarget(nodes=(Node(),))),
        (
            "pyamqp://me:p%40ss%2F@rabbit:1234/shop",
            AmqpTarget(
                nodes=(Node(host="rabbit", port=1234, username="me", password="p@ss/", vhost="shop"),)
            ),
        ),
        (
            "amqp://a/v?heartbeat=5&queue_type=quorum&max_priority=9;amqp://b:1/v",
            AmqpTarget(
                nodes=(Node(host="a", vhost="v"), Node(host="b", port=1, vhost="v")),
                heartbeat=5,
                queue_type="quorum",
                max_priority=9,
            ),
        ),
        (
            "amqps://host?ssl_ca_certs=/ca.pem&declare=never",
            AmqpTarget(
                nodes=(Node(host="host", port=5671),), tls={"ssl_ca_certs": "/ca.pem"}, declare="never"
            ),
        ),
        (
            "amqp://shop:one@a/shop;amqp://other:two@b/standby;amqp://c",
            AmqpTarget(
                nodes=(
                    Node(host="a", username="shop", password="one", vhost="shop"),
                    Node(host="b", username="other", password="two", vhost="standby"),
                    Node(host="c"),
                )
            ),
        ),
        ("amqp://[::1]:7/", AmqpTarget(nodes=(Node(host="::1", port=7),))),
    ],
)
def test_what_a_url_means(url: str, target: AmqpTarget) -> None:
    assert parse_amqp_url(url) == target


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://x", "not an AMQP URL"),
        ("amqp://x;redis://y", "not an AMQP URL"),
        ("amqp://x?colour=red", "colour"),
        ("amqp://x?ssl_ca_certs=/a", "ssl_ca_certs"),
        ("amqp://x?heartbeat=soon", "heartbeat"),
        ("amqp://x?queue_type=fast", "queue_type"),
        ("amqp://x?max_priority=0", "max_priority"),
        ("amqp://x?declare=maybe", "declare"),
        ("amqp://x:99999", "port"),
    ],
)
def test_what_cannot_be_used_is_named(url: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_amqp_url(url)


def test_a_password_is_not_shown() -> None:
    target = parse_amqp_url("amqp://me:secret@host/shop")
    for shown in (str(target), repr(target), pretty_repr(target)):
        assert "secret" not in shown
    with pytest.raises(ConfigError) as raised:
        parse_amqp_url("redis://me:secret@host")
    assert "secret" not in str(raised.value)
