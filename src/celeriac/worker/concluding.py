"""How a body hands over its ending before its function returns.

Some functions have work to do after their ending is on record: hooks that look at the stored result, and that must run
in the thread of the body. Such a function decides its ending itself, in its own thread, since judging is pure; hands
the decision over; and waits until the worker has landed it. Only then is the message acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from celeriac.worker.decision import Decision, Ending


class Abandoned(BaseException):
    """Raised in a function whose task was given up: its ending is of no interest any more."""


class Conclusion:
    """The ending of one body, as the body itself decides it.

    :param decide: returns what an ending means; any thread may call it.
    :param tag: the message's publication, by which a child process decides as the worker would.
    :param gone: whether the message is acknowledged already.
    :ivar wait: hands the decision over and returns when it is on record; ``None`` where the pool cannot wait. Returns
        the error for which it could not be recorded. The pool sets it. Raises ``Abandoned``.
    """

    __slots__ = ("_decide", "decision", "ending", "gone", "tag", "wait")

    def __init__(
        self, decide: Callable[[Ending], Decision], tag: str | None = None, *, gone: bool = False
    ) -> None:
        self._decide = decide
        self.tag = tag
        self.gone = gone
        self.ending: Ending | None = None
        self.decision: Decision | None = None
        self.wait: Callable[[], Exception | None] | None = None

    def judge(self, ending: Ending) -> Decision:
        """Decide what the ending means; it takes the place of an earlier one."""
        self.ending = ending
        self.decision = decision = self._decide(ending)
        return decision


class Paused:
    """What a pool returns for a call whose body has handed over its ending, and waits."""

    async def resume(self, error: Exception | None) -> None:
        """Let the function go on; return when it has returned. To be called once, whatever happens meanwhile.

        :param error: why the ending could not be recorded as it was handed over, and a failure was instead.
        """
        raise NotImplementedError


CONCLUSION: ContextVar[Conclusion | None] = ContextVar("celeriac_conclusion", default=None)
"""The conclusion of the body that runs here; set by the pool for tasks whose ``conduct`` asks for it."""
