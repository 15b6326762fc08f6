"""A part of Celery's own integration suite against celeriac's worker, as wide as two minutes allow.

`make celery-suite` runs the whole.
"""

from pathlib import Path

import pytest

from tests.celery_suite.harness import departures, expected, run, unpack

QUICK = (
    "test_canvas.py::test_link_error", "test_canvas.py::test_signature_serialization",
    "test_canvas.py::test_stamping_mechanism", "test_canvas.py::test_xmap_xstarmap", "test_inspect.py",
    "test_tasks.py::test_task_redis_result_backend", "test_tasks.py::test_signal_bound_method_receivers",
    "test_tasks.py::test_tasks::test_properties",
)  # fmt: skip
"""Files, classes and tests that sleep little."""

LEAST = 50
"""Tests that the part has at the least: names that match nothing pass in silence."""


@pytest.mark.timeout(900)
def test_what_passes_with_celerys_worker_passes_with_ours(tmp_path: Path):
    """Some of the workflows and tasks, and remote control."""
    report = tmp_path / "part.xml"
    found = run(unpack(tmp_path), "processes", "redis", QUICK, report)
    wanted = (expected("redis") - departures().keys()) & found.keys()
    assert len(wanted) >= LEAST
    missing = sorted(name for name in wanted if found[name] != "passed")
    assert not missing, report.with_suffix(".out").read_text()[-20_000:]
