"""The code of a Markdown page, and what it says that this prints.

Rules: an HTML comment before a block says what is done with it. ``file NAME`` writes it there, ``append NAME`` adds it;
``run`` runs it, Python as a script, a console block command by command, each followed by what it prints (``run last``:
by the last line of that, since a terminal shows the others only for a moment); ``start TEXT`` starts a command and
waits for a line with that text; ``output`` compares the block with what the last script printed. ``stop``, without a
block, stops what was started last. In what is printed, ``…`` stands for anything within a line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BLOCK = re.compile(
    r"(?P<marks>(?:^<!-- [^\n]* -->\n)*)^```(?P<language>\w*)\n(?P<text>.*?)^```$|^<!-- (?P<alone>stop) -->$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"<!-- (?P<verb>file|append|run|start|output)(?: (?P<argument>.*?))? -->")


@dataclass(frozen=True)
class Block:
    """One block of code.

    :param marks: verb to argument, of the comments before it.
    """

    language: str
    text: str
    line: int
    marks: dict[str, str] = field(default_factory=dict)

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command of a console block, with the output that follows it."""
        command, output = "", ""
        for line in self.text.splitlines(keepends=True):
            if line.startswith("$ "):
                if command:
                    yield command, output
                command, output = line[2:].strip(), ""
            elif command.endswith("\\"):
                command = f"{command[:-1]}{line.strip()}"
            else:
                output += line
        if command:
            yield command, output


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["alone"]:
            found.append(Block("", "", line, {"stop": ""}))
        else:
            marks = {mark["verb"]: mark["argument"] or "" for mark in MARK.finditer(match["marks"])}
            found.append(Block(match["language"], match["text"], line, marks))
    return found


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def same(promised: str, printed: str) -> bool:
    """Whether this was printed word for word, but for what ``…`` stands for."""
    pattern = re.escape(promised.strip()).replace(re.escape("…"), "[^\n]*")
    return re.fullmatch(pattern, printed.strip()) is not None
