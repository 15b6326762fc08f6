"""Messages for tests that do not care what is in them."""

from celeriac.wire.envelope import Envelope, Route


def message(number: int = 0, **fields: object) -> Envelope:
    usual = {
        "body": b"[[1, 2], {}, {}]",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"task": "add", "id": str(number)},
    }
    return Envelope(**(usual | fields))  # type: ignore[arg-type]


def route(queue: str) -> Route:
    return Route(routing_key=queue, queue=queue)


def number_of(envelope: object) -> int:
    assert isinstance(envelope, Envelope)
    return int(envelope.headers["id"])
