"""Lines that another process writes while a test reads them."""

from pathlib import Path


def whole_lines(file: Path) -> list[str]:
    """The lines of a file, which need not be there yet; the last one is left out as long as half of it is written."""
    text = file.read_text() if file.exists() else ""
    return [line[:-1] for line in text.splitlines(keepends=True) if line.endswith("\n")]
