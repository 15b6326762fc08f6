"""Settings: what is refused, and what the refusal says."""

import pytest

from celeriac import ConfigError, Retry, Settings
from celeriac.settings import settings_from


def test_defaults_are_those_of_the_design():
    settings = Settings()
    assert settings.default_queue == "celery"
    assert settings.accept_content == ("json",)
    assert settings.delivery == "at_least_once"
    assert settings.max_deliveries == 5
    assert settings.protocol == 2


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("default_queue", "", "a name"),
        ("serializer", "xml", "'json' or 'msgpack' or 'yaml' or 'pickle'"),
        ("accept_content", ("json", "xml"), "a tuple of serializer names"),
        ("accept_content", (), "a tuple of serializer names"),
        ("protocol", 3, "1 or 2"),
        ("protocol", True, "1 or 2"),
        ("result_expires", 0, "seconds, more than 0, or None"),
        ("result_expires", "1d", "seconds"),
        ("ignore_result", 1, "True or False"),
        ("delivery", "exactly_once", "'at_least_once' or 'at_most_once'"),
        ("max_deliveries", 0, "1 or more"),
        ("publish_timeout", float("inf"), "seconds"),
        ("lease", -1.0, "seconds"),
        ("lease", 604801, "at most 604800"),
        ("key_prefix", None, "text"),
        ("routes", "shop.*", "a mapping"),
        ("compression", "gz", "one of gzip"),
        ("default_retry", 3, "a Retry"),
    ],
)
def test_a_bad_value_names_the_setting_the_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(ConfigError) as refused:
        Settings(**{name: value})
    text = str(refused.value)
    assert name in text
    assert repr(value) in text
    assert allowed in text


def test_an_unknown_setting_is_answered_with_the_nearest_known():
    with pytest.raises(ConfigError, match=r"unknown setting 'default_que': did you mean default_queue\?"):
        settings_from({"default_que": "x"})


def test_what_an_app_sends_it_must_accept():
    for name in ("serializer", "result_serializer"):
        with pytest.raises(ConfigError, match=rf"{name}='pickle' is not in accept_content"):
            Settings(**{name: "pickle"})
    assert Settings(serializer="pickle", accept_content=("json", "pickle")).serializer == "pickle"


def test_a_list_of_accepted_content_is_taken():
    assert settings_from({"accept_content": ["json", "yaml"]}).accept_content == ("json", "yaml")


def test_settings_do_not_change():
    with pytest.raises(AttributeError):
        Settings().lease = 5.0


def test_a_default_retry_policy_is_a_policy():
    assert Settings(default_retry=Retry(max_attempts=7)).default_retry.max_attempts == 7
