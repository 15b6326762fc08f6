"""Runs lines of Celery's own command line, several in one process: its start takes longer than all of them.

Reads a JSON list of argument lists from standard input; writes a list of ``[exit code, stdout, stderr]``.
"""

import json
import sys

from celery.bin.celery import celery
from click.testing import CliRunner


def run(arguments: list[str]) -> list[object]:
    ended = CliRunner().invoke(celery, ["--no-color", *arguments])
    return [ended.exit_code, ended.stdout, ended.stderr]


if __name__ == "__main__":
    results = []
    for arguments in json.load(sys.stdin):
        results.append(run(arguments))
        print(arguments, results[-1][0], file=sys.stderr)
    print(json.dumps(results))
