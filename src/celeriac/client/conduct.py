"""How a task ends, where that is not as usual: for tasks that another library's rules apply to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from celeriac.context import Context
from celeriac.errors import SoftTimeLimitExceeded

Errback: TypeAlias = Callable[[Context, BaseException, str], Any]
"""Called in a thread with the context of the failed task, the error and the text of its traceback."""

Outside: TypeAlias = Callable[[Context, BaseException, Any], Callable[[], None]]
"""Called in a thread with the context of a task, the error by which it failed outside of its function (a time limit, a
lost process), and the conclusion to put the ending in; returns what is to be done, in a thread, once that is on record.
"""


class Conduct(msgspec.Struct, frozen=True):
    """The rules by which a task ends.

    :param concludes: whether its function hands over its ending by itself: see ``worker.concluding``.
    :param soft_error: the exception that is raised in the function when the soft time limit has passed.
    :param keep_errors: whether a failure is recorded even where the task's results are ignored.
    :param bury_failed: whether the message of a failed task goes to the dead letters.
    :param requeue_lost: whether the message goes back to its queue when the process that ran the task died.
    :param requeue_late: whether it goes back when the hard time limit passed.
    :param errback: returns what to call for a signature of this task that stands among the errbacks of another one;
        ``None`` where it is sent as a message. Without it, tasks of several parameters are called.
    :param outside: decides for a task that concludes, but failed outside of its function.
    """

    concludes: bool = False
    soft_error: type[Exception] = SoftTimeLimitExceeded
    keep_errors: bool = False
    bury_failed: bool = False
    requeue_lost: bool = False
    requeue_late: bool = False
    errback: Callable[[Mapping[str, Any]], Errback | None] | None = None
    outside: Outside | None = None


USUAL = Conduct()
