"""The commands by name; the module of one is imported when it is run, or its help is asked for.

Rules: the list of commands needs no module, so the short texts stand here; a test sees to it that each is the
command's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping

import click

Find = Callable[[], click.Command]


class Commands(MutableMapping[str, click.Command]):
    """The commands of a group, each found when it is first asked for.

    :param entries: short text and what imports the command, by name.
    """

    def __init__(self, entries: dict[str, tuple[str, Find]]) -> None:
        self._entries = entries
        self._found: dict[str, click.Command] = {}

    def short_texts(self) -> dict[str, str]:
        """Return what the help of the group says of each command, sorted by name."""
        return {name: self._entries[name][0] for name in sorted(self._entries)}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._found:
            self._found[name] = self._entries[name][1]()
        return self._found[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._entries[name] = command.short_help or "", lambda: command
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._entries[name]
        self._found.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _beat() -> click.Command:
    from celeriac.cli.beat import beat

    return beat


def _schedules() -> click.Command:
    from celeriac.cli.schedules import schedules

    return schedules


def _call() -> click.Command:
    from celeriac.cli.call import call

    return call


def _control() -> click.Command:
    from celeriac.cli.control import control

    return control


def _dead() -> click.Command:
    from celeriac.cli.dead import dead

    return dead


def _demo() -> click.Command:
    from celeriac.cli.demo import demo

    return demo


def _doctor() -> click.Command:
    from celeriac.cli.doctor import doctor

    return doctor


def _events() -> click.Command:
    from celeriac.cli.events import events

    return events


def _exporter() -> click.Command:
    from celeriac.cli.exporter import exporter

    return exporter


def _migrate() -> click.Command:
    from celeriac.cli.migrate import migrate

    return migrate


def _probe() -> click.Command:
    from celeriac.cli.probe import probe

    return probe


def _failed() -> click.Command:
    from celeriac.cli.failed import failed

    return failed


def _inspect() -> click.Command:
    from celeriac.cli.inspect import inspect

    return inspect


def _queues() -> click.Command:
    from celeriac.cli.queues import queues

    return queues


def _result() -> click.Command:
    from celeriac.cli.result import result

    return result


def _revoke() -> click.Command:
    from celeriac.cli.revoke import revoke

    return revoke


def _status() -> click.Command:
    from celeriac.cli.status import status

    return status


def _top() -> click.Command:
    from celeriac.cli.top import top

    return top


def _web() -> click.Command:
    from celeriac.cli.web import web

    return web


def _worker() -> click.Command:
    from celeriac.cli.worker import worker

    return worker


def commands() -> Commands:
    """Return the commands of ``celeriac``."""
    return Commands(
        {
            "beat": ("Send periodic tasks when they are due.", _beat),
            "call": ("Send a task; wait for its value.", _call),
            "control": ("Tell workers what to do.", _control),
            "dead": ("List, run again or delete messages that were set aside.", _dead),
            "demo": ("See it work; needs nothing.", _demo),
            "doctor": ("Say what would be connected to, and what to fix.", _doctor),
            "events": ("Watch what workers do, as it happens.", _events),
            "exporter": ("Serve the metrics of a fleet for Prometheus.", _exporter),
            "failed": ("List, run again or delete tasks that failed for good.", _failed),
            "migrate": ("Make or update the tables in PostgreSQL, or print them.", _migrate),
            "probe": ("Ask a worker of this machine whether it lives.", _probe),
            "inspect": ("Ask workers what they do.", _inspect),
            "queues": ("List the queues, look into one, empty one.", _queues),
            "result": ("Show what is known of a task.", _result),
            "revoke": ("Take back tasks that were sent.", _revoke),
            "status": ("List the workers that are online.", _status),
            "top": ("Watch and steer the fleet in a terminal.", _top),
            "web": ("Show the fleet in a browser: tasks, errors, queues, workers.", _web),
            "schedules": ("List periodic tasks; pause, run or check them.", _schedules),
            "worker": ("Run the tasks of an app until SIGTERM or Ctrl-C.", _worker),
        }
    )
