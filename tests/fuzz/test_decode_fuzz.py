"""The fuzz harness, bounded."""

import pytest

from tests.fuzz.decode_fuzz import check, search, seeds


def test_no_input_breaks_a_decoder():
    assert search(seed=20240229, seconds=1.0, least=300) >= 300


def test_the_seeds_themselves_are_read():
    for raw in seeds():
        check(raw)


def test_the_harness_sees_a_broken_promise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.fuzz.decode_fuzz.unpack", lambda raw: raw.decode("ascii"))
    with pytest.raises((UnicodeDecodeError, AssertionError)):
        search(seed=1, seconds=0.0, least=1)
