"""Events and requests, changed at random for a bounded time."""

import json

from celeriac.cli.events import written
from tests.fuzz.event_fuzz import search


def test_no_event_or_request_stops_who_hears_it():
    assert search(seed=20261129, seconds=1.0, least=500) >= 500


def test_an_event_that_json_cannot_carry_back_is_written_all_the_same():
    deep: list[object] = []
    for _ in range(600):
        deep = [deep]
    told = json.loads(written({"type": "__type__", "deep": deep, "number": 1}))
    assert told["number"] == 1
    assert told["deep"].startswith("[[[")
