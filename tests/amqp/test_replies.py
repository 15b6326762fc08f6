"""Which closes of a server are worth another try."""

import pytest

from celeriac.servers.rabbitmq.protocol.errors import QueueAway, Refused, Unavailable, of_reply


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (320, "CONNECTION_FORCED - shutdown", Unavailable),
        (404, "NOT_FOUND - home node of durable queue 'a' is down or inaccessible", QueueAway),
        (506, "RESOURCE_ERROR - Stream not found for queue 'celeriac.ledger' in vhost '/'", Unavailable),
        (404, "NOT_FOUND - no queue 'a'", Refused),
        (506, "RESOURCE_ERROR - too many channels", Refused),
    ],
)
def test_what_passes_by_itself_is_told_from_what_is_refused(code, text, kind):
    assert type(of_reply(code, text)) is kind


def test_a_queue_that_stays_away_is_one_to_delete():
    text = "NOT_FOUND - home node of durable queue 'celeriac.ledger' is down or inaccessible"
    assert str(of_reply(404, text)).startswith(f"{text} (404); ")
    assert str(of_reply(404, text)).endswith("delete the queue, and it is made anew")
