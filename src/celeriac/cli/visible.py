"""Characters that would act on a terminal or a log instead of being read, made visible.

Rules: what a message, a result or a name brings along is never written as it is: a control character could clear the
screen, set its title or colour, turn text round, or begin a line that looks like one of ours.
"""

from __future__ import annotations

import re

_ACTING = "\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""C0, DEL, C1, marks of direction, separators of lines, halves of surrogate pairs; not the newline."""

_IN_A_LINE = re.compile(f"[\n{_ACTING}]")
_IN_LINES = re.compile(f"[{_ACTING}]")
_HALVES = re.compile("[\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Return the text on one line: each such character, and each newline, as Python writes it, such as ``\x1b``."""
    return text if text.isprintable() else _IN_A_LINE.sub(_escaped, text)


def visible_lines(text: str) -> str:
    """Return a text of several lines, such as a traceback, likewise; its newlines stay."""
    return text if text.isprintable() else _IN_LINES.sub(_escaped, text)


def visible_halves(text: str) -> str:
    """Return the text with only the halves of surrogate pairs made visible, which no encoder accepts."""
    return _HALVES.sub(_escaped, text)


def visible_json(text: str) -> str:
    r"""Return JSON that means the same, with each such character as JSON writes it, such as ``\u009b``."""
    return text if text.isprintable() else _IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
