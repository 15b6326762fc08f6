"""What anybody who may write to a queue can put there, none of it a message."""

DEEP = "[" * 5000

TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "zero byte": b"\0",
    "a quote": b'"',
    "a number": b"9" * 5000,
    "null": b"null",
    "a list": b"[1, 2, 3]",
    "a text": b'"text"',
    "a bad escape": b'"\\x',
    "a bad escape in an object": b'{"a": "\\x"}',
    "half a surrogate": b'"\\ud800"',
    "half a surrogate in an object": b'{"body": "\\ud800"}',
    "no UTF-8": b'{"a": "\xff\xfe',
    "a deep list": (DEEP + "]" * 5000).encode(),
    "a deep list that is cut": DEEP.encode(),
    "a deep object": b'{"a": ' + DEEP.encode() + b"]" * 5000 + b"}",
    "deep headers": b'{"body": "e30=", "headers": {"a": ' + DEEP.encode() + b"]" * 5000 + b"}}",
    "the end of an entry": b'{"a": 1}", "", "q',
    "an entry": b'["a", "", "q"]',
    "a due time that is none": b'{"headers": {"eta": "9999-99-99T99:99:99+99:99", "id": 1}, "body": []}',
    "an unknown type": b'{"body": {"__type__": "nosuch", "__value__": 1}}',
    "body of the wrong type": b'{"body": true, "headers": [], "properties": 1}',
    "a number that has no end": b'{"body": "e30=", "headers": {"retries": 1e999, "id": -1, "task": {}}}',
}
