"""The filters that stand in a URL."""

import pytest

from celeriac.monitor.filters import Filter, read_filter

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("15m", NOW - 900),
        ("2h", NOW - 7200),
        ("7 d", NOW - 604800),
        ("30s", NOW - 30),
        ("1700000000.5", 1700000000.5),
        ("2026-11-29", 1795910400.0),
        ("2026-11-29T13:00:00+01:00", 1795953600.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_times(text: str, since: float | None):
    assert read_filter({"since": text}, NOW).since == since
    assert read_filter({"until": text}, NOW).until == since


def test_what_is_not_given_filters_nothing():
    assert read_filter({"state": " ", "other": "x"}, NOW) == Filter(state="")
