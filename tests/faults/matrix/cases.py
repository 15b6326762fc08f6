"""The rows of the crash matrix: an ending, and what comes of it in each delivery mode.

Rules: data only. The test runs these rows, the page in the documentation is written from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from celeriac.settings import Delivery
from celeriac.testing.faults import Point, When

Broker = Literal["memory", "sqlite", "postgres", "redis", "rabbitmq"]
How = Literal[
    "in one worker", "worker killed", "child killed", "broker gone", "worker stopped", "revoked",
    "worker suspended", "interpreter held", "machine vanished", "restarted while held",
]  # fmt: skip

EVERYWHERE: Sequence[Broker] = ("memory", "sqlite", "postgres", "redis", "rabbitmq")
OUTLIVES_A_PROCESS: Sequence[Broker] = ("sqlite", "postgres", "redis", "rabbitmq")
IN_ONE_STEP: Sequence[Broker] = ("sqlite", "postgres", "redis")
"""Where result, follow-ups and acknowledgement land together, so that there is no moment between them."""
IN_ORDER: Sequence[Broker] = ("rabbitmq",)
WITH_LEASES: Sequence[Broker] = ("sqlite", "postgres", "redis")
"""Where the workers themselves find out who of them is dead."""
MODES: Sequence[Delivery] = ("at_least_once", "at_most_once")


@dataclass(frozen=True)
class Outcome:
    """What is to be seen from outside.

    :param caller: what the caller gets: the value, an exception's class, or ``nothing``.
    :param runs: how often the body ran.
    :param left: what is left in the broker.
    """

    caller: str
    runs: int
    left: str = "nothing"


@dataclass(frozen=True)
class Ending:
    """A row.

    :param body: the task's name in ``bodies``.
    :param at: where the worker is killed or the broker goes; ``None`` is in the body.
    :param kills: how many workers are killed one after the other.
    """

    text: str
    body: str
    at_least_once: Outcome
    at_most_once: Outcome
    how: How = "in one worker"
    brokers: Sequence[Broker] = EVERYWHERE
    at: tuple[Point, When] | None = None
    kills: int = 1

    def outcome(self, mode: Delivery) -> Outcome:
        """What comes of it in this mode."""
        return self.at_least_once if mode == "at_least_once" else self.at_most_once


@dataclass(frozen=True)
class Case:
    """A row in one delivery mode on one broker."""

    ending: Ending
    mode: Delivery
    broker: Broker

    def __str__(self) -> str:
        return f"{self.ending.text}-{self.mode}-{self.broker}"

    @property
    def expected(self) -> Outcome:
        """What should come of it."""
        return self.ending.outcome(self.mode)


ONCE = Outcome("the value", 1)
TWICE = Outcome("the value", 2)
THRICE = Outcome("the value", 3)
NEVER_HEARD_OF = Outcome("nothing", 1)
NEVER_RUN = Outcome("nothing", 0)


def alike(outcome: Outcome) -> tuple[Outcome, Outcome]:
    """The same in both modes."""
    return outcome, outcome


def killed(
    text: str,
    at: tuple[Point, When] | None,
    least: Outcome,
    most: Outcome,
    body: str = "returns",
    brokers: Sequence[Broker] = OUTLIVES_A_PROCESS,
) -> Ending:
    """A row of a killed worker."""
    return Ending(text, body, least, most, "worker killed", brokers, at)


def gone(text: str, at: tuple[Point, When], least: Outcome, most: Outcome, body: str = "returns") -> Ending:
    """A row of a broker that goes away, and comes back."""
    return Ending(text, body, least, most, "broker gone", OUTLIVES_A_PROCESS, at)


ENDINGS: Sequence[Ending] = (
    Ending("The body returns", "returns", *alike(ONCE)),
    Ending("The body raises", "raises", *alike(Outcome("ValueError", 1))),
    Ending("The body asks for a retry, then returns", "retries_once", *alike(TWICE)),
    Ending("The body fails until its attempts (3) are spent", "gives_up", *alike(Outcome("OSError", 3))),
    Ending("The body rejects the message", "rejects", Outcome("Reject", 1, "1 dead"), Outcome("Reject", 1)),
    Ending("The body gives the message back once, then returns", "gives_back_once", *alike(TWICE)),
    Ending("The body ignores its result", "ignores", *alike(NEVER_HEARD_OF)),
    Ending("The body exceeds its time limit", "too_long", *alike(Outcome("TimeLimitExceeded", 1))),
    Ending("The body exceeds its soft limit", "too_long_softly", *alike(Outcome("SoftTimeLimitExceeded", 1))),
    Ending("The body cancels itself", "cancels", *alike(Outcome("TaskAborted", 1))),
    Ending("The body calls `sys.exit`", "exits", *alike(Outcome("TaskAborted", 1))),
    Ending(
        "The worker stops and its grace ends while the body runs",
        "waits_once", TWICE, Outcome("WorkerLost", 1), "worker stopped",
    ),
    Ending(
        "The task is revoked while the body runs",
        "waits_once", *alike(Outcome("TaskRevoked", 1)), "revoked",
    ),
    Ending(
        "The worker is suspended (SIGSTOP) for longer than two leases while the body runs",
        "waits_for_leave", *alike(ONCE), "worker suspended", WITH_LEASES,
    ),
    Ending(
        "The body holds the interpreter for longer than two leases",
        "holds_the_interpreter", *alike(ONCE), "interpreter held", WITH_LEASES,
    ),
    Ending(
        "Redis is restarted while the body holds the interpreter for longer than two leases",
        "holds_the_interpreter", *alike(ONCE), "restarted while held", ("redis",),
    ),
    Ending(
        "The worker's machine vanishes while the body runs, and its connections stay open",
        "waits_once", TWICE, NEVER_HEARD_OF, "machine vanished", ("redis",),
    ),
    killed("The worker is killed before it takes the message", ("take", "before"), ONCE, ONCE),
    killed("The worker is killed after it took the message", ("take", "after"), ONCE, ONCE),
    killed("The worker is killed while the body runs", None, TWICE, NEVER_HEARD_OF, "kills_once"),
    killed("The worker is killed before the result is stored", ("store", "before"), TWICE, NEVER_HEARD_OF),
    killed("The worker is killed after the result was stored", ("store", "after"), TWICE, ONCE, brokers=IN_ORDER),
    killed("The worker is killed after the result was stored", ("store", "after"), ONCE, ONCE, brokers=IN_ONE_STEP),
    killed("The worker is killed before the acknowledgement", ("ack", "before"), TWICE, ONCE, brokers=IN_ORDER),
    killed("The worker is killed before the acknowledgement", ("ack", "before"), ONCE, ONCE, brokers=IN_ONE_STEP),
    killed("The worker is killed after the acknowledgement", ("ack", "after"), ONCE, NEVER_RUN),
    killed(
        "The worker is killed before it sends the retry",
        ("publish", "before"), THRICE, NEVER_HEARD_OF, "asks_again", IN_ORDER,
    ),
    killed(
        "The worker is killed before it sends the retry",
        ("publish", "before"), TWICE, NEVER_HEARD_OF, "asks_again", IN_ONE_STEP,
    ),
    killed(
        "The worker is killed after it sent the retry",
        ("publish", "after"), THRICE, TWICE, "asks_again", IN_ORDER,
    ),
    killed(
        "The worker is killed after it sent the retry",
        ("publish", "after"), TWICE, TWICE, "asks_again", IN_ONE_STEP,
    ),
    Ending(
        "The body kills every worker that runs it (`max_deliveries=2`)",
        "kills", Outcome("WorkerLost", 2, "1 dead"), NEVER_HEARD_OF, "worker killed", OUTLIVES_A_PROCESS, kills=2,
    ),
    Ending(
        "The child process is killed while the body runs",
        "killed_in_child", *alike(Outcome("WorkerLost", 1)), "child killed",
    ),
    gone("The broker is gone before the message is taken", ("take", "before"), ONCE, ONCE),
    gone("The broker is gone after the message was taken", ("take", "after"), ONCE, ONCE),
    gone("The broker is gone before the result is stored", ("store", "before"), ONCE, ONCE),
    gone("The broker is gone after the result was stored", ("store", "after"), ONCE, ONCE),
    gone("The broker is gone before the acknowledgement", ("ack", "before"), ONCE, ONCE),
    gone("The broker is gone after the acknowledgement", ("ack", "after"), ONCE, NEVER_RUN),
    gone("The broker is gone before the retry is sent", ("publish", "before"), TWICE, TWICE, "asks_again"),
    gone("The broker is gone after the retry was sent", ("publish", "after"), TWICE, TWICE, "asks_again"),
)  # fmt: skip

CASES: Sequence[Case] = tuple(
    Case(ending, mode, broker) for ending in ENDINGS for mode in MODES for broker in ending.brokers
)
