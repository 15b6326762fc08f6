"""The later steps of a chain are passed on as they came."""

import json
import pickle

import pytest

from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope
from celeriac.wire.steps import Steps
from celeriac.wire.task import Malformed, TaskMessage, decode, encode

STEPS = [
    {"task": name, "args": [], "kwargs": {}, "options": {}, "extra": {"of": "somebody"}} for name in "cba"
]


def received(chain: object) -> TaskMessage | Malformed:
    body = json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": chain, "chord": None}]).encode()
    headers = {"task": "t", "id": "1"}
    return decode(Envelope(body=body, headers=headers, content_type="application/json"), Codecs())


def chain_of(message: TaskMessage | Malformed) -> Steps:
    assert isinstance(message, TaskMessage)
    assert isinstance(message.chain, Steps)
    return message.chain


def test_steps_are_a_sequence_of_signatures():
    steps = chain_of(received(STEPS))
    assert steps == STEPS
    assert (len(steps), steps[-1], steps[:-1]) == (3, STEPS[-1], STEPS[:-1])
    assert list(reversed(steps)) == STEPS[::-1]


def test_the_rest_of_a_chain_is_written_as_it_came():
    rest = chain_of(received(STEPS))[:-1]
    written = json.loads(encode(TaskMessage(id="2", task="a", chain=rest), Codecs()).body)
    assert written[2]["chain"] == STEPS[:-1]


@pytest.mark.parametrize("serializer", ["msgpack", "pickle"])
def test_every_serializer_writes_them(serializer: str):
    message = TaskMessage(id="2", task="a", chain=chain_of(received(STEPS)))
    codecs = Codecs(accept=[serializer])
    envelope = encode(message, codecs, serializer=serializer)
    again = decode(envelope, codecs)
    assert isinstance(again, TaskMessage)
    assert again.chain == STEPS


def test_another_process_gets_plain_signatures():
    assert pickle.loads(pickle.dumps(chain_of(received(STEPS)))) == STEPS


@pytest.mark.parametrize("chain", [[1], [STEPS[0], "b"], [None], [[]]])
def test_what_is_no_list_of_signatures_is_malformed(chain: object):
    assert isinstance(received(chain), Malformed)


@pytest.mark.parametrize("extra", ["ä", "\ud800"])
def test_text_beyond_ascii_comes_through(extra: str):
    steps = [{**STEPS[0], "args": [extra]}]
    for ascii_only in (True, False):
        text = json.dumps([[], {}, {"chain": steps}], ensure_ascii=ascii_only)
        envelope = Envelope(
            body=text.encode("utf-8", "surrogatepass"),
            headers={"task": "t", "id": "1"},
            content_type="application/json",
        )
        message = decode(envelope, Codecs())
        if isinstance(message, Malformed):
            assert not ascii_only
            continue
        written = json.loads(encode(message, Codecs()).body)
        assert written[2]["chain"] == steps
