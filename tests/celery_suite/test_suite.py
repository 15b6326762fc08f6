"""A part of Celery's own integration suite against celeriac's worker, in less than a minute.

`make celery-suite` runs the whole.
"""

from pathlib import Path

import pytest

from tests.celery_suite.harness import departures, expected, run, unpack

QUICK = {
    "test_canvas.py": {
        "test_link_error": ("",),
        "test_signature_serialization": tuple(
            f"test_rebuild_nested_{both}"
            for both in ("chain_chord", "group_chord", "chord_chain", "chord_group")
        ),
        "test_stamping_mechanism": (
            "test_replace_merge_stamps",
            "test_stamp_canvas_with_dictionary_link_error",
            "test_stamping_workflow",
            "test_stamps_remain_on_task_retry",
            "test_task_received_has_access_to_stamps",
        ),
        "test_xmap_xstarmap": ("",),
    },
    "test_inspect.py": {
        "test_Inspect": ("test_ping", "test_registered", "test_active_queues", "test_revoked"),
    },
    "test_tasks.py": {
        "test_signal_bound_method_receivers": ("test_each_instance_receives",),
        "test_task_redis_result_backend": (
            "test_asyncresult_get_cancels_subscription",
            "test_ignoring_result_no_subscriptions",
            "test_retry_preserves_ignore_result_false",
        ),
        "test_tasks": ("test_properties",),
    },
}
"""Tests that sleep little, of each kind some, by file and class; an empty name stands for the whole class.

Not ``test_scheduled``, which is run six times where a test before it has left a retry: it wants to see no other task.
"""

LEAST = 27
"""Tests that the part has at the least: names that match nothing pass in silence."""


def chosen() -> list[str]:
    """Return the part as pytest wants it."""
    return [
        "::".join(filter(None, (file, kind, name)))
        for file, kinds in QUICK.items()
        for kind, names in kinds.items()
        for name in names
    ]


@pytest.mark.timeout(900)
def test_what_passes_with_celerys_worker_passes_with_ours(tmp_path: Path):
    """Some of the workflows and tasks, and remote control."""
    report = tmp_path / "part.xml"
    found = run(unpack(tmp_path), "processes", "redis", chosen(), report)
    wanted = (expected("redis") - departures("redis").keys()) & found.keys()
    assert len(wanted) >= LEAST
    missing = sorted(name for name in wanted if found[name] != "passed")
    assert not missing, report.with_suffix(".out").read_text()[-20_000:]
