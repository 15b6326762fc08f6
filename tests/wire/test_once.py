"""Marks of copies, as anybody may write them."""

import pytest

from celeriac.wire.once import Copy, read_copy


def test_a_mark_comes_back_as_it_was():
    copy = Copy("key", "name", "number")
    assert read_copy(copy.to_text()) == copy


@pytest.mark.parametrize(
    "text",
    [
        *(None, 7, b"{}", "", "{", "null", "[]", "9" * 5000, "[" * 5000, '{"key": ' + "[" * 1500),
        *(
            "\ud800",
            '{"key": "\ud800", "name": "a", "number": "1"}',
            '{"key": "\\ud800", "name": "a", "number": "1"}',
        ),
        *(
            '{"key": "a", "name": 1, "number": true}',
            '{"key": "%s", "name": "a", "number": "1"}' % ("a" * 5000),
        ),
    ],
)
def test_what_is_no_mark_names_no_copy(text: object):
    assert read_copy(text) is None
