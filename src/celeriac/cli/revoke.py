"""``celeriac revoke``: takes back tasks."""

from __future__ import annotations

from collections.abc import Sequence

import click

from celeriac.cli.console import say
from celeriac.cli.source import Source, run_with, takes_source


@click.command("revoke", short_help="Take back tasks that were sent.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--root", is_flag=True, help="The ids are those of first tasks: whole workflows are meant.")
@click.option("--terminate", is_flag=True, help="Also kill the processes in which they run (-P processes).")
@takes_source
def revoke(source: Source, ids: Sequence[str], root: bool, terminate: bool) -> None:
    """See to it that the tasks with these ids do not run any more, in any worker, now or later.

    Those that wait end as REVOKED at once; coroutines that run are cancelled; other functions run to their end, unless
    they run in a process and --terminate is given.
    """
    app = source.load_existing()
    work = app.cancel(roots=ids, terminate=terminate) if root else app.cancel(ids, terminate=terminate)
    run_with(app, work)
    noun = "workflow" if root else "task"
    say(f"{len(ids)} {noun}{'' if len(ids) == 1 else 's'} revoked")
