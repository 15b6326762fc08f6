"""The options of ``celery worker`` that ``celeriac worker`` has too, under Celery's names and with their meaning.

Rules: what is here works with every app; what an app of celeriac's says in another way (its queues, its limits) is an
option for those whose start scripts say it so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from celeriac.errors import ConfigError
from celeriac.settings import MOST_AHEAD

T = TypeVar("T")


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in str(value).split(",") if name.strip())


class Scale(click.ParamType[tuple[int, int]]):
    """The most tasks at once and, after a comma, the least: ``10,3``."""

    name = "max,min"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        most, _, least = str(value).partition(",")
        try:
            scale = int(most), int(least or 0)
        except ValueError:
            scale = 0, 0
        if not 0 <= scale[1] <= scale[0] or scale[0] < 1:
            self.fail(f"{value!r}: give the most tasks at once and the least, such as 10,3", param, ctx)
        return scale


class CeleryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker was told by Celery's options.

    :param exclude: queues not to take from.
    :param include: modules to import beside that of the app.
    :param purge: delete what waits in the queues, before anything is taken.
    :param autoscale: the most and the least tasks at once.
    :param optimization: ``fair`` takes no message before it can start.
    """

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    purge: bool = False
    time_limit: float | None = None
    soft_time_limit: float | None = None
    autoscale: tuple[int, int] | None = None
    pidfile: str | None = None
    optimization: str | None = None
    prefetch_multiplier: int | None = None
    disable_prefetch: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the settings that the options replace."""
        found = {"time_limit": self.time_limit, "soft_time_limit": self.soft_time_limit}
        changes: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
        if self.optimization == "fair" or self.prefetch_multiplier == 1 or self.disable_prefetch:
            changes["prefetch"] = 0
        elif self.prefetch_multiplier is not None:
            changes["backlog"] = self.prefetch_multiplier or MOST_AHEAD
        return changes

    def handed_down(self) -> dict[str, Any]:
        """Return the options that a supervisor gives each of its processes."""
        return {
            "-X": ",".join(self.exclude) or None,
            "-I": ",".join(self.include) or None,
            "--time-limit": self.time_limit,
            "--soft-time-limit": self.soft_time_limit,
            "--autoscale": ",".join(map(str, self.autoscale)) if self.autoscale else None,
            "-O": "fair" if self.settings().get("prefetch") == 0 else None,
            "--prefetch-multiplier": self.settings().get("backlog"),
        }

    def queues(self, named: str | None, usual: Sequence[str]) -> list[str]:
        """Return the queues to take from.

        :param named: what ``-Q`` says.
        :param usual: those of the app, where that says nothing.

        Raises ``ConfigError`` where none is left.
        """
        chosen = [name.strip() for name in (named or "").split(",") if name.strip()] or list(usual)
        left = [name for name in chosen if name not in self.exclude]
        if not left:
            raise ConfigError(
                f"-X {','.join(self.exclude)} leaves no queue of {', '.join(chosen)} to take from"
            )
        return left


_SECONDS = click.FloatRange(min=0, min_open=True)

OPTIONS = (
    click.option(
        "-X",
        "--exclude-queues",
        "exclude",
        type=Names(),
        metavar="A,B",
        help="Do not take from these queues.",
    ),
    click.option("-I", "--include", type=Names(), metavar="A,B", help="Import these modules too."),
    click.option(
        "--purge", "--discard", is_flag=True, help="Delete what waits in the queues before anything is taken."
    ),
    click.option(
        "--time-limit", type=_SECONDS, metavar="SECONDS", help="Hard limit of tasks that have none."
    ),
    click.option(
        "--soft-time-limit", type=_SECONDS, metavar="SECONDS", help="Soft limit of tasks that have none."
    ),
    click.option(
        "--autoscale",
        type=Scale(),
        metavar="MAX,MIN",
        help="Run as many tasks at once as there are, from MIN to MAX.",
    ),
    click.option(
        "--pidfile", metavar="FILE", help="Write the process's id there; refuse where one runs already."
    ),
    click.option("-O", "--optimization", type=click.Choice(["default", "fair"]), hidden=True),
    click.option("--prefetch-multiplier", type=click.IntRange(min=0), hidden=True),
    click.option("--disable-prefetch", is_flag=True, hidden=True),
)


def takes_celery_options(function: Callable[..., T]) -> Callable[..., T]:
    """Add the options to a command; ``split_celery`` takes them from its keywords."""
    decorated: Any = function
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    result: Callable[..., T] = decorated
    return result


def split_celery(options: dict[str, Any]) -> CeleryOptions:
    """Take Celery's options out of a command's keywords."""
    names = CeleryOptions.__struct_fields__
    given = {name: options.pop(name) for name in names}
    return CeleryOptions(**{name: value for name, value in given.items() if value is not None})
