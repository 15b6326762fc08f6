"""Hides secrets in the text of arguments, results and errors before anything is stored or shown.

Rules: a secret is recognised by its name, in a dict, a keyword or ``name=value``; a value without a name is not
recognised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NAMES = ("password", "passwd", "token", "secret", "authorization", "api_key", "apikey", "cookie")
"""Names whose values are hidden; longer names that contain one count too."""

HIDDEN = "********"

_VALUE = r"""(?:b?'(?:[^'\\]|\\.)*'?|b?"(?:[^"\\]|\\.)*"?|[^\s,;&)}\]'"]+)"""


class Mask:
    """Hides the values of some names.

    :param names: in lower case.
    """

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self._names = tuple(name.lower() for name in names)
        alternatives = "|".join(map(re.escape, self._names))
        # Possessive, and tried once for each word: what anybody may have written is read in one pass.
        before, after = rf"(?:(?!{alternatives})[\w\-])*+", r"""[\w\-]*+['"]?+\s*+[:=]\s*+"""
        pattern = rf"(?<![\w\-])(?P<name>{before}(?:{alternatives}){after})(?P<value>{_VALUE})"
        self._pattern = re.compile(pattern, re.IGNORECASE)

    def __call__(self, text: str) -> str:
        """Return the text with its secrets hidden."""
        if not self._names or not any(name in text.lower() for name in self._names):
            return text
        return self._pattern.sub(rf"\g<name>'{HIDDEN}'", text)

    def hides(self, name: object) -> bool:
        """Whether the value of this name is a secret."""
        return isinstance(name, str) and any(part in name.lower() for part in self._names)
