"""The drawing of a workflow, whatever its tasks say of each other."""

from celeriac.monitor.rows import TaskRow
from celeriac.web.graph import MOST_ALIKE, Node, arrange, draw


def task(id: str, parent: str = "", name: str = "shop.pay", state: str = "SUCCESS") -> TaskRow:
    return TaskRow(id, name=name, state=state, root="a", parent=parent)


def shape(nodes: list[Node]) -> list[object]:
    return [(node.id, shape(node.below)) if node.below else node.id for node in nodes]


def test_each_task_stands_below_the_one_that_sent_it():
    found = arrange([task("c", "b", "shop.pack"), task("a"), task("b", "a", "shop.ship")])
    assert shape(found) == [("a", [("b", ["c"])])]


def test_a_task_that_is_its_own_parent_or_one_of_its_children_is_drawn_once():
    # A worker of Celery tells of a task that it retries as of its own parent.
    assert shape(arrange([task("a", "a", state="RETRY")])) == ["a"]
    circle = draw([task("a", "c"), task("b", "a"), task("c", "b")], "./")
    assert circle.count("<a ") == 3


def test_many_of_one_name_are_one_box_that_counts():
    members = [task(f"m{number}", "a", state="SUCCESS" if number else "FAILURE") for number in range(100)]
    (top,) = arrange([task("a", name="shop.all"), *members])
    assert sum(node.count for node in top.below) == 100
    assert len(top.below) <= MOST_ALIKE
    drawn = draw([task("a", name="shop.all"), *members], "./")
    assert "state-failure" in drawn


def test_no_tasks_are_no_drawing():
    assert draw([], "./") == ""
