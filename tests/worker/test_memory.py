"""Memory stays flat, however many tasks and results go through."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FEW = 4
"""Batches that are looked at together: what one leaves behind the next may use, so the highest of some is flat."""
ALLOWED = 8 * 1024 * 1024


@pytest.mark.timeout(600)
def test_200_000_tasks_and_results_leave_memory_as_it_was(redis_url: str, unique: Callable[[str], str]):
    # In a process of its own: what other tests left in this one's memory is moved about meanwhile.
    command = [sys.executable, "-m", "tests.worker.flat_memory", redis_url, unique("flat")]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    resident = [int(line) for line in printed.stdout.split()]
    assert len(resident) == 20
    grown = max(resident[-FEW:]) - max(resident[FEW : 2 * FEW])
    assert grown < ALLOWED, f"memory grew by {grown / 1e6:.1f} MB: {resident}"
