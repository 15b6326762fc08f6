"""A part of Celery's own integration suite against celeriac's worker, as wide as two minutes allow."""

from pathlib import Path

import pytest

from tests.celery_suite.harness import CHORDS, departures, expected, run, unpack

QUICK = (
    "test_class_based_tasks", "test_task_redis_result_backend", "test_task_replacement",
    "test_signal_bound_method_receivers", "test_trace_log_arguments",
)  # fmt: skip
"""The classes of ``test_tasks.py`` that do not sleep."""

LEAST = 150
"""Tests that the part has at the least: names that match nothing pass in silence."""


@pytest.mark.timeout(900)
def test_what_passes_with_celerys_worker_passes_with_ours(tmp_path: Path):
    """Workflows but for chords, remote control, and some of the tasks."""
    chosen = ["test_canvas.py", f"--deselect=t/integration/{CHORDS}", "test_inspect.py"]
    chosen += [f"test_tasks.py::{name}" for name in QUICK]
    report = tmp_path / "part.xml"
    found = run(unpack(tmp_path), "processes", "redis", chosen, report)
    wanted = (expected("redis") - departures().keys()) & found.keys()
    assert len(wanted) >= LEAST
    missing = sorted(name for name in wanted if found[name] != "passed")
    assert not missing, report.with_suffix(".out").read_text()[-20_000:]
