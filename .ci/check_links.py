"""Fail when a Markdown file of the repository links to a file or heading that is not there."""

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def markdown_files(root: Path) -> list[Path]:
    """Every Markdown file that is committed or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in names.splitlines() if (root / name).exists()]


def anchors(text: str) -> set[str]:
    """The anchors a renderer gives to the headings: lower case, punctuation dropped, spaces to hyphens."""
    found = HEADING.findall(FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def broken_links(file: Path, root: Path) -> list[str]:
    """One line for each link of `file` that leads nowhere."""
    problems = []
    for match in LINK.finditer(FENCED.sub("", file.read_text())):
        link = match[1] or match[2]
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        if not target.exists():
            problems.append(f"{file.relative_to(root)}: {link}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            problems.append(f"{file.relative_to(root)}: {link}: no such heading")
    return problems


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    files = markdown_files(root)
    problems = [problem for file in files for problem in broken_links(file, root)]
    print("\n".join(problems) or f"{len(files)} Markdown files, every link leads somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
