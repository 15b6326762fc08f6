import pytest
from rich.pretty import pretty_repr

from celeriac.errors import ConfigError
from celeriac.servers.redis.url import parse_redis_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"addresses": (("localhost", 6379),), "db": 0}),
        ("redis://host:1234/5", {"addresses": (("host", 1234),), "db": 5}),
        ("redis://:pass%2Fword%401@host", {"password": "pass/word@1", "username": None}),
        ("redis://us%65r:pw@host/", {"username": "user", "password": "pw", "db": 0}),
        ("redis://[::1]:7000/1", {"addresses": (("::1", 7000),), "db": 1}),
        ("valkey://host?db=3", {"addresses": (("host", 6379),), "db": 3, "tls": None}),
        ("redis://host?global_keyprefix=app%3A", {"key_prefix": "app:"}),
        ("redis+socket:///run/redis.sock?virtual_host=4", {"path": "/run/redis.sock", "db": 4}),
        ("redis+socket://:pw@/run/r%20s.sock", {"path": "/run/r s.sock", "password": "pw", "db": 0}),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
        (
            "sentinel://:pw@a:1/2;sentinel://b/2?master_name=mine&sentinel_password=s",
            {
                "addresses": (("a", 1), ("b", 26379)),
                "db": 2,
                "master": "mine",
                "password": "pw",
                "sentinel_password": "s",
            },
        ),
    ],
)
def test_reads_every_form(url, expected):
    target = parse_redis_url(url)
    assert {name: getattr(target, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("query", "check", "checks_host"),
    [
        ("", "required", True),
        ("?ssl_cert_reqs=CERT_NONE", "none", False),
        ("?ssl_cert_reqs=optional&ssl_check_hostname=true", "optional", True),
        ("?ssl_cert_reqs=required&ssl_check_hostname=false&ssl_ca_certs=/ca.pem", "required", False),
    ],
)
def test_reads_tls_options(query, check, checks_host):
    tls = parse_redis_url(f"rediss://host{query}").tls
    assert tls is not None
    assert (tls["ssl_cert_reqs"], tls["ssl_check_hostname"]) == (check, checks_host)
    assert tls.get("ssl_ca_certs") == ("/ca.pem" if "ca.pem" in query else None)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host", "not a Redis URL"),
        ("redis://host?colour=red", "'colour'.*known are.*client_name"),
        ("redis://host?ssl_cert_reqs=none", "'ssl_cert_reqs'"),
        ("redis://host/first", "'first'"),
        ("redis://host:99999", "port"),
        ("rediss://host?ssl_cert_reqs=maybe", "'maybe'"),
        ("rediss://host?ssl_check_hostname=maybe", "'maybe'"),
        ("sentinel://host", "master_name"),
        ("redis+socket://", "path"),
        ("redis://a;redis://b", "sentinel"),
        ("redis+socket://tmp/x.sock", "three slashes.*redis\\+socket:///"),
        ("unix://user@host/x.sock", "three slashes"),
        ("redis+socket:///x.sock?db=1&virtual_host=2", "1 and 2"),
        ("redis://host/1?db=2", "1 and 2"),
        ("redis://host?db=1&db=2", "'db'.*two values"),
        ("redis+socket:///run/a#b.sock", "%23 for #"),
        ("redis+socket:///run/a@b.sock", "%40 for @"),
        ("sentinel://:a@one;sentinel://:b@two?master_name=m", "same password"),
        ("sentinel://one?master_name=m;sentinel://two?master_name=n", "'master_name'.*two values"),
    ],
)
def test_says_what_is_wrong(url, words):
    with pytest.raises(ConfigError, match=words):
        parse_redis_url(url)


def test_never_shows_the_password():
    target = parse_redis_url("redis://user:secret@host/1")
    for shown in (str(target), repr(target), pretty_repr(target)):
        assert "secret" not in shown
    with pytest.raises(ConfigError) as caught:
        parse_redis_url("http://user:secret@host/1")
    assert "secret" not in str(caught.value)
