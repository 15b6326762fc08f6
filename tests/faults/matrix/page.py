"""Writes the crash matrix into its page of the documentation: ``python -m tests.faults.matrix.page``."""

from collections.abc import Iterator
from pathlib import Path

from tests.faults.matrix.cases import ENDINGS, Ending, Outcome

PAGE = Path(__file__).resolve().parents[3] / "docs" / "explanation" / "crash-matrix.md"
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"
HEADS = ("ending", "brokers", "the caller sees", "runs", "left", "the caller sees", "runs", "left")


def table() -> str:
    """The matrix in Markdown."""
    lines = [_line(HEADS), _line("---:" if head == "runs" else "---" for head in HEADS)]
    return "\n".join([*lines, *(_line(_cells(ending)) for ending in ENDINGS)]) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it should be."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def _cells(ending: Ending) -> Iterator[str]:
    yield ending.text
    yield "all" if "memory" in ending.brokers else ", ".join(ending.brokers)
    yield from _seen(ending.at_least_once)
    yield from _seen(ending.at_most_once)


def _seen(outcome: Outcome) -> Iterator[str]:
    is_error = outcome.caller not in ("the value", "nothing")
    yield f"`{outcome.caller}`" if is_error else outcome.caller
    yield str(outcome.runs)
    yield "" if outcome.left == "nothing" else outcome.left


def _line(cells: Iterator[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
