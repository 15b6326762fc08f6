"""Runs lines of Celery's own command line, several in one process: its start takes longer than all of them.

Reads a JSON list of argument lists from standard input; writes a list of ``[exit code, stdout, stderr]``, which ends
with the first line that had to wait for an answer in vain.
"""

import json
import sys
import time

from celery.bin.celery import celery
from click.testing import CliRunner

IN_VAIN = 15.0
"""Seconds that only a line takes to which somebody does not answer."""


def run(lines: list[list[str]]) -> list[list[object]]:
    results: list[list[object]] = []
    for arguments in lines:
        began = time.monotonic()
        ended = CliRunner().invoke(celery, ["--no-color", *arguments])
        results.append([ended.exit_code, ended.stdout, ended.stderr])
        if time.monotonic() - began > IN_VAIN:
            break
    return results


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
