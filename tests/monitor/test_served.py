"""The queues of workers, as these tell of them."""

import asyncio

import pytest

from celeriac import Celeriac
from celeriac.monitor.served import AGAIN, Served
from celeriac.testing.clock import ManualClock


def answer(*names: object) -> list[object]:
    return [{"name": name, "exchange": {}} for name in names]


def test_what_was_told_once_stays_known():
    served = Served(ManualClock())
    served.learn("a@x", answer("pay", "ship"))
    served.learn("b@x", answer("ship", "bill"))
    served.learn("a@x", answer("pay"))
    assert (served.of("a@x"), served.of("b@x"), served.of("c@x")) == (("pay",), ("ship", "bill"), ())
    assert served.names == ["pay", "ship", "bill"]


@pytest.mark.parametrize(
    "told", [None, "pay", {"error": "no such method"}, [None, 7, {}], answer(None, 7, ["x"], "")], ids=repr
)
def test_any_other_answer_tells_of_no_queue(told: object):
    served = Served(ManualClock())
    served.learn("a@x", told)
    assert (served.of("a@x"), served.names) == ((), [])


async def test_a_worker_is_asked_when_it_is_heard_and_not_at_each_heartbeat():
    clock = ManualClock()
    served = Served(clock)
    async with Celeriac("asking", "memory://") as app, app.worker(queues=["pay"]) as worker:
        asking = asyncio.create_task(served.follow(app))
        served.meet(worker.name)
        async with asyncio.timeout(60):
            while not served.names:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        assert served.of(worker.name) == ("pay",)
        served.learn(worker.name, [])
        served.meet(worker.name)
        served.meet("\ud800")
        assert not served._due
        clock.advance(AGAIN)
        served.meet(worker.name)
        assert served._due == {worker.name}
        asking.cancel()
