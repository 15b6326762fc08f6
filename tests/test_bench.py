"""What the bench makes of its measurements."""

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bench.against import Pairs, cells, earlier, in_use, note
from bench.chart import draw
from bench.ground import Molds
from bench.machine import Machine
from bench.plan import QUICK, Plan
from bench.report import BEGIN, END, write_into
from bench.rows import Row, at_least_times, at_most

SVG = "{http://www.w3.org/2000/svg}"

MACHINE = {
    "date": "2026-01-02", "processor": "any", "cores": 2, "memory_gb": 4, "system": "Linux", "python": "3.11.0",
    "redis_server": "7.0.0", "packages": {"celery": "5.7.0"}, "seconds": 1.0, "fixed_loop_ms": [30.0, 60.0],
    "cores_used_by_others": 0.0,
}  # fmt: skip


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was twice as fast in the last round: each side's median is of another speed.
    row = Row("consume", "tasks/s", [100, 100, 220], [10, 20, 20], at_least_times(10))
    assert row.ratio == 10
    assert row.verdict == "ok"


def test_where_less_is_better_the_ratio_is_celerys_over_ours() -> None:
    row = Row("p50", "ms", [2.0], [3.0], at_least_times(2), less_is_better=True)
    assert row.ratio == 1.5
    assert row.verdict == "below"


def test_an_upper_bound_is_on_the_value() -> None:
    assert Row("memory", "MB", [50], goal=at_most(50)).verdict == "ok"
    assert Row("memory", "MB", [51], goal=at_most(50)).verdict == "below"
    assert Row("memory", "MB", [51]).verdict == ""


def test_nothing_used_at_all_is_written_as_json_can() -> None:
    row = Row("idle", "%", [0.0], [0.1], less_is_better=True)
    assert row.as_json()["ratio"] is None


def test_the_table_replaces_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_into(page, MACHINE, [Row("idle", "MB", [40], [120], at_most(50), less_is_better=True)])
    text = page.read_text()
    assert "| idle | 40 MB | 120 | 3.0x | ≤ 50 MB | ok |" in text
    assert "old" not in text
    assert text.startswith(f"before\n{BEGIN}")
    assert text.endswith(f"{END}\nafter\n")


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="no place for the table"):
        write_into(page, MACHINE, [])
    assert page.read_text() == "nothing\n"


def test_against_a_commit_the_ratio_is_taken_within_each_pair() -> None:
    found: dict[str, Pairs] = {}
    for now, then in ((100.0, 50.0), (300.0, 100.0), (40.0, 10.0)):
        note(found, "now", [Row("consume", "tasks/s", [now])])
        note(found, "then", [Row("consume", "tasks/s", [then])])
    assert found["consume"].ratios == [2, 3, 4]
    assert cells(found["consume"])[3:] == ("3.000", "2.000 to 4.000", "more")


def test_against_a_commit_celery_has_its_turn_once() -> None:
    taken: list[str] = []
    plan = Plan(QUICK, Molds(), Machine(), remembered={})
    for _ in range(2):
        runs = plan.in_turns(
            "x", {"celery": lambda: taken.append("celery"), "ours": lambda: taken.append("ours")}
        )
        assert len(runs["celery"]) == 1
    assert taken == ["celery", "ours", "ours"]


def test_an_earlier_commit_is_imported_from_a_work_tree_that_ends() -> None:
    command = ("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD")
    head = subprocess.run(command, capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("this is no git checkout")
    with earlier(head.stdout.strip()) as tree, in_use(tree):
        assert (tree / "src" / "celeriac" / "__init__.py").exists()
        assert os.environ["PYTHONPATH"] == str(tree / "src")
    assert not tree.exists()


def test_the_chart_has_a_bar_for_each_row_that_celery_has_a_side_in() -> None:
    rows = [
        Row("consume: <async>", "tasks/s", [300], [10]),
        Row("send", "messages/s", [100], [10]),
        Row("worker CPU a task", "µs", [10], [300], less_is_better=True),
        Row("alone", "tasks/s", [100]),
    ]
    svg = ET.fromstring(draw(MACHINE, rows))
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    widths = [float(bar.attrib["width"]) for bar in svg.iter(f"{SVG}rect")]
    assert "consume: <async>" in texts
    assert {"30.0x", "10.0x"} <= set(texts)
    assert len(widths) == 2
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no row has a side of Celery"):
        draw(MACHINE, [Row("alone", "tasks/s", [100])])
