"""The message that is sent again: what stays, and what is new."""

from typing import Any

import pytest

from celeriac.contracts.set_aside import DeadLetter
from celeriac.monitor.again import RETRY_OF, Arguments, Refused, renewed
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.task import TaskMessage, decode, encode

CODECS = Codecs(accept=("json", "msgpack"))


def letter_of(envelope: Envelope | Unreadable) -> DeadLetter:
    return DeadLetter(id="old", envelope=envelope, queue="q", reason="ValueError()", died_at=1.0)


def message(**fields: Any) -> TaskMessage:
    given = {"args": [1, "ä"], "kwargs": {"k": None}, "root_id": "old", "headers": {"tenant": "x"}, **fields}
    return TaskMessage(id="old", task="shop.pay", retries=3, **given)


def read(envelope: Envelope) -> TaskMessage:
    found = decode(envelope, CODECS)
    assert isinstance(found, TaskMessage)
    return found


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_the_body_is_the_same_to_the_byte(serializer: str):
    args = [b"\x00\xff"] if serializer == "msgpack" else [1]
    sent = encode(message(args=args), CODECS, serializer=serializer, compression="gzip", sent=5.0)
    again = renewed(letter_of(sent), "new", CODECS, 9.0)
    assert (again.body, again.content_type, again.content_encoding) == (
        sent.body,
        sent.content_type,
        sent.content_encoding,
    )
    found = read(again)
    assert (found.id, found.root_id, found.retries, found.args) == ("new", "new", 0, args)
    assert found.headers == {"tenant": "x", RETRY_OF: "old"}
    assert again.correlation_id == "new"
    assert again.headers["x-celeriac-sent"] == 9.0


def test_a_workflow_stays_its_workflow():
    chain = [{"task": "next", "args": [], "kwargs": {}, "options": {}}]
    sent = encode(message(root_id="root", parent_id="parent", chain=chain), CODECS)
    found = read(renewed(letter_of(sent), "new", CODECS, 9.0))
    assert (found.root_id, found.parent_id, len(found.chain)) == ("root", "parent", 1)


def test_protocol_1_has_its_id_in_the_body():
    sent = encode(message(protocol=1), CODECS)
    found = read(renewed(letter_of(sent), "new", CODECS, 9.0))
    assert (found.id, found.protocol, found.args, found.retries) == ("new", 1, [1, "ä"], 0)


def test_other_arguments_leave_the_rest():
    chain = [{"task": "next", "args": [], "kwargs": {}, "options": {}}]
    sent = encode(message(chain=chain), CODECS, serializer="msgpack")
    again = renewed(letter_of(sent), "new", CODECS, 9.0, Arguments([7], {}))
    found = read(again)
    assert (found.args, found.kwargs, len(found.chain), again.content_type) == ([7], {}, 1, sent.content_type)
    assert again.headers["argsrepr"] == "(7,)"


def test_what_cannot_be_read_is_refused():
    with pytest.raises(Refused, match="cannot be read: no JSON"):
        renewed(letter_of(Unreadable(b"", "no JSON")), "new", CODECS, 9.0)
    picky = Codecs(accept=("json",))
    sent = encode(message(), CODECS, serializer="msgpack")
    assert renewed(letter_of(sent), "new", picky, 9.0).body == sent.body
    with pytest.raises(Refused, match="msgpack"):
        renewed(letter_of(sent), "new", picky, 9.0, Arguments([], {}))
