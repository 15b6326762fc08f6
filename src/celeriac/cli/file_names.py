"""The names of a worker's files, as init scripts write them for Celery's (Celery: "Node name replacements")."""

from __future__ import annotations

import re
from pathlib import Path

_PLACEHOLDER = re.compile("%([pnhdiI%])")


def file_named(template: str, node: str) -> Path:
    """Return the whole path of a file.

    :param template: the name; %p stands for the node name, %n for its part before the ``@``, %h for the host after
        it, %d for what follows the host's first dot. %i is 0 and %I nothing: all processes of a worker write to one
        file, each line as a whole. A further % is written %%.
    """
    name, _, host = node.partition("@")
    parts = {"p": node, "n": name, "h": host, "d": host.partition(".")[2], "i": "0", "I": "", "%": "%"}
    return Path(_PLACEHOLDER.sub(lambda found: parts[found[1]], template)).absolute()
