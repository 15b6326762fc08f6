"""The screen of ``celeriac top`` (extra ``top``): tables that follow the fleet, and keys that steer it.

Rules: a table is drawn anew each second, and the chosen line stays chosen. Every action asks once, and what it did
stands in the last line. Text of tasks is never markup, and no character of it acts on the terminal.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane, Tree
from textual.widgets.tree import TreeNode

from celeriac.cli.top_deeds import Deeds
from celeriac.cli.top_tables import ERRORS, QUEUES, TABLES, TASKS, Table, fitted, header, parents_first
from celeriac.cli.visible import visible
from celeriac.errors import CeleriacError
from celeriac.monitor.filters import Filter
from celeriac.monitor.glance import ORDERS, Glance, look, seed
from celeriac.monitor.monitor import Monitor
from celeriac.monitor.rows import TaskRow

BETWEEN = 1.0
"""Seconds between two looks."""

_STYLES = {
    "FAILURE": "bold red",
    "STARTED": "bold green",
    "RETRY": "yellow",
    "gone": "red",
    "paused": "yellow",
}

_NARROW = 10
"""Columns that are narrower keep their width; the others are as wide as what they show."""

Deed = Callable[[], Awaitable[str]]


class Ask(ModalScreen[bool]):
    """Asks whether to do something."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]
    DEFAULT_CSS = """
    Ask { align: center middle; }
    Ask Static { width: 70%; height: auto; border: solid $accent; padding: 1 2; background: $surface; }
    """

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Static(Text(f"{visible(self._question)}\n\ny: yes   n: no"), id="question")

    def action_answer(self, answer: bool) -> None:
        """Close with the answer."""
        self.dismiss(answer)


class Workflow(ModalScreen[None]):
    """Shows the tasks of one workflow as a tree."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,t,f5", "dismiss", "Back")]
    DEFAULT_CSS = "Workflow Tree { height: 1fr; }"

    def __init__(self, tasks: Sequence[TaskRow]) -> None:
        super().__init__()
        self._tasks = tasks

    def compose(self) -> ComposeResult:
        tree: Tree[str] = Tree(Text("Workflow"), id="tree")
        tree.root.expand()
        nodes: dict[str, TreeNode[str]] = {}
        for task in parents_first(self._tasks):
            above = nodes.get(task.parent, tree.root)
            label = Text(fitted(f"{task.state:<8} {task.name}  {task.id}", 200), _STYLES.get(task.state, ""))
            nodes[task.id] = above.add(label, data=task.id, expand=True)
        yield tree
        yield Footer()


class TopApp(App[None]):
    """The whole screen.

    :param monitor: what it shows; it receives events already.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,f10", "quit", "Quit"),
        Binding("slash,f4", "filter", "Filter"),
        Binding("s,f6", "sort", "Sort"),
        Binding("t,f5", "tree", "Workflow"),
        Binding("k,f9", "cancel(False)", "Cancel"),
        Binding("K", "cancel(True)", "Terminate"),
        Binding("r", "retry", "Again"),
        Binding("p", "pause", "Pause"),
        *(Binding(str(number), f"tab('{table.name}')", show=False) for number, table in enumerate(TABLES, 1)),
    ]
    CSS = """
    #numbers { height: auto; max-height: 2; text-style: bold; }
    #said { height: 1; }
    #filter { display: none; height: 3; }
    #filter.asked { display: block; }
    TabbedContent { height: 1fr; }
    DataTable { height: 1fr; }
    """

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self._monitor = monitor
        self._deeds = Deeds(monitor)
        self._wanted = Filter()
        self._order = ORDERS[0]
        self._looking = False
        self.glance: Glance | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="numbers")
        with TabbedContent(id="tabs"):
            for table in TABLES:
                with TabPane(table.name, id=table.name), Vertical():
                    yield DataTable(id=f"table-{table.name}", cursor_type="row", zebra_stripes=True)
        yield Input(
            id="filter", placeholder="part of a name, id, argument or error; Enter shows, Escape ends"
        )
        yield Static(id="said")
        yield Footer()

    async def on_mount(self) -> None:
        """Draw the tables for the first time, and from then on."""
        for table in TABLES:
            shown = self._shown(table)
            for heading, width in table.headings:
                shown.add_column(heading, key=heading, width=width if width < _NARROW else None)
        await seed(self._monitor)
        await self.follow()
        self.set_interval(BETWEEN, self.follow)
        self._shown(TASKS).focus()

    async def follow(self) -> None:
        """Look, and draw what is there now."""
        if _has_hung_up():
            self.exit()  # nobody sees it: without its terminal it would run for ever
        if self._looking:
            return  # the broker takes its time: the next look comes later
        self._looking = True
        try:
            self.glance = glance = await look(self._monitor, self._wanted, self._order, self.glance)
        finally:
            self._looking = False
        with suppress(NoMatches):  # the screen was closed while it looked
            self._draw(glance)

    def _draw(self, glance: Glance) -> None:
        trouble = glance.trouble and visible(f"NO BROKER: {glance.trouble}")
        self.query_one("#numbers", Static).update(Text(trouble or header(glance, self.size.width)))
        for table in TABLES:
            _draw(self._shown(table), table, glance)

    def _shown(self, table: Table) -> DataTable[Text]:
        shown: DataTable[Text] = self.query_one(f"#table-{table.name}", DataTable)
        return shown

    @property
    def tab(self) -> str:
        """The name of the tab that is open."""
        return self.query_one("#tabs", TabbedContent).active

    def chosen(self, table: Table) -> str:
        """Return what the chosen line of a table shows; empty where there is none."""
        return _chosen(self._shown(table))

    def say(self, text: str) -> None:
        """Put a text into the last line."""
        self.query_one("#said", Static).update(Text(visible(text), no_wrap=True, overflow="ellipsis"))

    # --- keys

    def action_tab(self, name: str) -> None:
        """Open a tab."""
        self.query_one("#tabs", TabbedContent).active = name
        self.query_one(f"#table-{name}", DataTable).focus()

    async def action_sort(self) -> None:
        """Put the tasks in the next order."""
        self._order = ORDERS[(ORDERS.index(self._order) + 1) % len(ORDERS)]
        self.say(f"tasks by {self._order}")
        await self.follow()

    def action_filter(self) -> None:
        """Ask for a part of the tasks."""
        field = self.query_one("#filter", Input)
        field.add_class("asked")
        field.focus()

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Show only these tasks."""
        self._wanted = Filter(text=event.value.strip())
        self._leave_filter()
        self.say(f"tasks with {event.value.strip()!r}" if event.value.strip() else "all tasks")
        await self.follow()

    async def key_escape(self) -> None:
        """Leave the filter, and show all tasks."""
        self.query_one("#filter", Input).value = ""
        if self._wanted != Filter():
            self._wanted = Filter()
            await self.follow()
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("asked")
        self.query_one(f"#table-{self.tab}", DataTable).focus()

    async def action_tree(self) -> None:
        """Show the workflow of the chosen task."""
        id = self.chosen(TASKS)
        row = await self._monitor.history.task(id) if id else None
        if row is not None:
            self.push_screen(Workflow(await self._monitor.history.of_root(row.root or row.id)))

    def action_cancel(self, terminate: bool) -> None:
        """Revoke the chosen task; end it, if it runs and that is asked for."""
        if id := self._chosen_task():
            verb = "Terminate" if terminate else "Cancel"
            self._ask(f"{verb} task {id}?", lambda: self._deeds.cancel(id, terminate=terminate))

    def action_retry(self) -> None:
        """Run the chosen task again, or all failed ones of the chosen error."""
        if self.tab == ERRORS.name and (group := self.chosen(ERRORS)):
            self._ask("Run all failed tasks of this error again?", lambda: self._deeds.retry_all(group))
        elif id := self._chosen_task():
            self._ask(f"Run task {id} again?", lambda: self._deeds.retry(id))

    def action_pause(self) -> None:
        """Pause or resume the chosen queue."""
        name = self.chosen(QUEUES) if self.tab == QUEUES.name else ""
        if not name or self.glance is None:
            self.say("p pauses a queue: choose one in the tab Queues")
            return
        paused = any(queue.name == name and queue.paused for queue in self.glance.queues.queues)
        verb = "Resume" if paused else "Pause"
        self._ask(f"{verb} queue {name}?", lambda: self._deeds.pause(name, paused=paused))

    def _chosen_task(self) -> str:
        if self.tab == TASKS.name and (id := self.chosen(TASKS)):
            return id
        self.say("choose a task in the tab Tasks")
        return ""

    def _ask(self, question: str, deed: Deed) -> None:
        async def whole(answer: bool | None) -> None:
            if not answer:
                self.say("nothing was done")
                return
            try:
                said = await deed()
            except CeleriacError as error:
                said = f"not done: {error}"
            self._monitor.forget()
            self.say(said)
            await self._monitor.history.note("top", question, said)
            await self.follow()

        self.push_screen(Ask(question), whole)


def _draw(shown: DataTable[Text], table: Table, glance: Glance) -> None:
    """Draw a table anew; the chosen line stays chosen."""
    chosen, at = _chosen(shown), shown.cursor_row
    lines = table.lines(glance)
    if "" in shown.rows:
        # The sentence in place of lines made its column wide, and Textual's columns never shrink by themselves.
        for column in shown.columns.values():
            column.content_width = column.label.cell_len
    shown.clear()
    for line in lines:
        cells = [
            Text(fitted(cell, width), _STYLES.get(cell, ""))
            for cell, (_, width) in zip(line.cells, table.headings, strict=True)
        ]
        shown.add_row(*cells, key=line.key)
    if not lines:
        shown.add_row(Text(""), Text(table.nothing), *[Text("")] * (len(table.headings) - 2), key="")
    keys = [line.key for line in lines]
    shown.move_cursor(row=keys.index(chosen) if chosen in keys else min(at, max(0, len(lines) - 1)))


def _chosen(shown: DataTable[Text]) -> str:
    if not shown.row_count:
        return ""
    return shown.coordinate_to_cell_key(shown.cursor_coordinate).row_key.value or ""


def _has_hung_up() -> bool:
    """Whether the terminal is gone; ``SIGHUP`` reaches only the processes that the terminal controls."""
    if sys.__stdin__ is None or not hasattr(select, "poll"):
        return False
    terminal = select.poll()
    terminal.register(sys.__stdin__.fileno(), 0)
    return any(state & select.POLLHUP for _, state in terminal.poll(0))
