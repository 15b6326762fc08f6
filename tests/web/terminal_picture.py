"""Takes the picture of the demo's terminal for the README, as SVG: what ``celeriac demo`` prints on a terminal."""

import io
import os
import re
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 126
TITLE = "make demo"

# The system's own monospaced letters: nothing is loaded from anywhere.
FORM = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="the output of make demo">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px ui-monospace, Menlo, Consolas, monospace; }}
.{unique_id}-title {{ font: 18px system-ui, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def take_terminal(file: Path) -> Path:
    """Run the demo on a terminal, and write the picture of what it leaves there."""
    screen = Console(record=True, width=COLUMNS, file=io.StringIO())
    screen.print(Text.from_ansi(_what_stays(_run_demo())))
    svg = screen.export_svg(title=TITLE, code_format=FORM, unique_id="demo")
    file.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
    return file


def _run_demo() -> str:
    screen, device = os.openpty()
    termios.tcsetwinsize(device, (40, COLUMNS))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    demo = subprocess.Popen(
        [sys.executable, "-m", "celeriac", "demo"], stdout=device, stderr=device, env=environment
    )
    os.close(device)
    seen = b""
    with suppress(OSError):  # nobody holds the other end any more
        while part := os.read(screen, 65536):
            seen += part
    os.close(screen)
    assert demo.wait() == 0, seen
    return seen.decode().replace("\r\n", "\n")


def _what_stays(printed: str) -> str:
    """Return the lines without the bars, which are gone at the end, and without what is measured and comes after it."""
    before, _, rest = printed.partition("\x1b[?25l")
    after = re.sub(r"\x1b\[\d*[AKG]|\r", "", rest.rpartition("\x1b[?25h")[2])
    table = after.partition("tasks/s")[0].rpartition("\n")[0]
    started = re.sub(r"in process \d+, .*", "", before, count=1)
    return f"$ {TITLE}\n{started.rstrip()}\n\n{table.strip(chr(10))}\n"
