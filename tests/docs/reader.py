"""Somebody who follows a page word by word, in an empty directory."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cli.project import VARIABLES
from tests.docs.pages import ROOT, Block, blocks_of, same
from tests.servers import LoggedProcess

REDIS = "redis://localhost"
RABBIT = "amqp://localhost"
"""How the pages call the reader's servers."""

_SLOW = re.compile(r"^\S+\[[0-9a-f-]{36}\] waits\b.*\n", re.MULTILINE)
"""What a command tells of a task that takes longer than a moment, as any does on a busy machine."""


class Reader:
    """``with Reader(directory, REDIS, url) as reader`` stops at the end what the page had started.

    :param directory: where the reader works.
    :param server: how the page calls a server, and ``url``, what stands in for that.
    """

    def __init__(self, directory: Path, server: str, url: str) -> None:
        self.directory = directory
        self._server = server
        self._url = url
        self._printed = ""
        self._started: list[LoggedProcess] = []
        own = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._env = {
            **own,
            "PATH": path,
            "C_FORCE_ROOT": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._started:
            self._stop()

    def follow(self, page: Path) -> int:
        """Do what the page says, block by block; return how many blocks were run.

        :raises AssertionError: something failed, or printed what the page does not say.
        """
        return sum(self._do(block, f"{page.relative_to(ROOT)}:{block.line}") for block in blocks_of(page))

    def _do(self, block: Block, where: str) -> bool:
        marks = block.marks
        name = marks.get("file", "script.py")
        if "file" in marks or ("run" in marks and block.language == "python"):
            (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (self.directory / name).write_text(self._mine(block.text))
        if "append" in marks:
            with (self.directory / marks["append"]).open("a") as file:
                file.write(self._mine(f"\n\n{block.text}"))
        if "stop" in marks:
            self._stop()
        if "start" in marks:
            [(command, _)] = block.commands()
            self._start(command, marks["start"])
        elif "run" in marks and block.language == "python":
            self._printed = self._run(f"python {name}", where)
        elif "run" in marks:
            for command, output in block.commands():
                printed = self._run(command, where, terminal=True)
                if marks["run"] == "last":
                    printed = "".join(printed.splitlines(keepends=True)[-1:])
                assert same(output, printed), _said(where, command, output, printed)
        elif "output" in marks:
            assert same(block.text, self._printed), _said(where, "the script", block.text, self._printed)
        return "run" in marks

    def _run(self, command: str, where: str, *, terminal: bool = False) -> str:
        """What the command prints; of a script what it prints itself, in a terminal also what is logged."""
        if command.startswith("export "):
            name, _, value = self._mine(command.removeprefix("export ")).partition("=")
            self._env[name] = value
            return ""
        done = subprocess.run(
            ["bash", "-c", self._mine(command)],
            cwd=self.directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if terminal else subprocess.PIPE,
            timeout=120,
            check=False,
        )
        printed = self._theirs(done.stdout)
        errors = self._theirs(done.stderr or b"")
        assert terminal or done.returncode == 0, f"{where}: {command} ended with {done.returncode}:\n{errors}"
        return printed

    def _start(self, command: str, ready: str) -> None:
        process = LoggedProcess(
            ["bash", "-c", f"exec {self._mine(command)}"], env=self._env, cwd=self.directory
        )
        self._started.append(process)
        process.wait_for(ready)

    def _stop(self) -> None:
        self._started.pop().stop()

    def _mine(self, text: str) -> str:
        return text.replace(self._server, self._url)

    def _theirs(self, output: bytes) -> str:
        """What a terminal shows in the end, in the words of the page."""
        shown = re.sub(r"[^\n]*\r", "", output.decode())
        return _SLOW.sub("", shown).replace(self._url, self._server)


def _said(where: str, what: str, promised: str, printed: str) -> str:
    return f"{where}: {what} printed\n{printed}\nwhere the page says\n{promised}"
