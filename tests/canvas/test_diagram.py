"""Workflows as drawings."""

from celeriac.canvas.diagram import graphviz, mermaid
from celeriac.canvas.nodes import Signature, group

WORKFLOW = (
    Signature("a", ("x",), options={"task_id": "A"})
    | group(Signature("b", options={"task_id": "B"}), Signature("c", options={"task_id": "C"}))
    | Signature("d", options={"task_id": 'D"'})
)


def test_mermaid_draws_an_arrow_for_each_dependency_and_colours_states():
    assert mermaid(WORKFLOW, {"B": "SUCCESS", "C": "FAILURE", "A": "PENDING", "other": "SUCCESS"}) == (
        "flowchart LR\n"
        "    t0[\"a('x')\"]\n"
        '    t1["b()"]\n'
        '    t2["c()"]\n'
        '    t3["d()"]\n'
        "    t0 --> t1\n"
        "    t0 --> t2\n"
        "    t1 --> t3\n"
        "    t2 --> t3\n"
        "    style t1 fill:#c8e6c9\n"
        "    style t2 fill:#ffcdd2\n"
    )


def test_graphviz_quotes_what_it_writes():
    text = graphviz(WORKFLOW, {"A": "SUCCESS"})
    assert '"A" [label="a(\'x\')", fillcolor="#c8e6c9"];' in text
    assert '"B" -> "D\\"";' in text
    assert text.startswith("digraph workflow {\n")
    assert text.endswith("}\n")


def test_what_runs_once_for_each_item_is_named_by_its_task():
    each = Signature("celery.starmap", kwargs={"task": {"task": "add"}, "it": [[1, 2]]})
    assert str(each | Signature("b")) == "add.starmap([[1, 2]]) | b()"
