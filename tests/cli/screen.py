"""A shop whose fleet is seen on the screen of ``celeriac top``, under Textual's own pilot."""

import asyncio
from collections.abc import Callable

from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from celeriac import Celeriac
from celeriac.cli.top_app import Ask, TopApp

WAIT = 60.0


class Shop:
    """An app with a worker that tells of its tasks, and the screen."""

    def __init__(self, app: Celeriac, top: TopApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.top = top
        self.pilot = pilot

    def text(self, name: str) -> str:
        """What stands in a line of the screen."""
        return str(self.top.screen_stack[0].query_one(f"#{name}", Static).render())

    def rows(self, tab: str) -> list[list[str]]:
        """The lines of a table."""
        table = self.top.screen_stack[0].query_one(f"#table-{tab}", DataTable)
        return [[str(cell) for cell in table.get_row_at(number)] for number in range(table.row_count)]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of the screen."""
        try:
            async with asyncio.timeout(WAIT):
                while not holds():
                    await self.top.follow()
                    await self.pilot.pause(0.02)
        except TimeoutError as error:
            seen = {tab: self.rows(tab) for tab in ("Tasks", "Queues", "Workers", "Errors")}
            raise AssertionError(f"{self.text('numbers')!r} {self.text('said')!r} {seen}") from error

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def answer(self, key: str, answer: str) -> None:
        """Press a key, and answer its question."""
        await self.press(key)
        await self.until(lambda: isinstance(self.top.screen, Ask))
        await self.press(answer)
        await self.until(lambda: not isinstance(self.top.screen, Ask))

    async def choose(self, tab: str, text: str) -> None:
        """Put the cursor on the line with this text."""
        await self.until(lambda: any(text in " ".join(row) for row in self.rows(tab)))
        table = self.top.screen_stack[0].query_one(f"#table-{tab}", DataTable)
        table.move_cursor(row=[text in " ".join(row) for row in self.rows(tab)].index(True))
