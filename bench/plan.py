"""How much is measured: enough for windows of seconds, little enough for six minutes in all."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.ground import Molds
from bench.machine import Machine

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """How many of each; ``idle`` and ``stream`` are in seconds."""

    rounds: int
    consume: int
    consume_plain: int
    consume_celery: int
    processes: int
    processes_work: int
    send_many: int
    send: int
    delay: int
    roundtrips: int
    idle: float
    naps: int
    sqlite: int
    postgres: int
    postgres_send: int
    postgres_celery: int
    postgres_parked: int
    postgres_late: int
    consume_rabbit: int
    consume_rabbit_celery: int
    send_rabbit: int
    delay_rabbit: int
    ticks: int
    history: int
    stream: int
    bulk: int


FULL = Sizes(
    rounds=5,
    consume=60_000,
    consume_plain=40_000,
    consume_celery=3_000,
    processes=20_000,
    processes_work=5_000,
    send_many=10_000,
    send=20_000,
    delay=10_000,
    roundtrips=300,
    idle=30.0,
    naps=10_000,
    sqlite=10_000,
    postgres=40_000,
    postgres_send=2_000,
    postgres_celery=1_500,
    postgres_parked=1_000_000,
    postgres_late=200_000,
    consume_rabbit=30_000,
    consume_rabbit_celery=4_000,
    send_rabbit=10_000,
    delay_rabbit=2_000,
    ticks=1_000,
    history=1_000_000,
    stream=60,
    bulk=10_000,
)
QUICK = Sizes(
    rounds=1,
    consume=20_000,
    consume_plain=15_000,
    consume_celery=1_500,
    processes=10_000,
    processes_work=2_000,
    send_many=10_000,
    send=10_000,
    delay=2_000,
    roundtrips=200,
    idle=15.0,
    naps=10_000,
    sqlite=5_000,
    postgres=15_000,
    postgres_send=500,
    postgres_celery=600,
    postgres_parked=200_000,
    postgres_late=50_000,
    consume_rabbit=20_000,
    consume_rabbit_celery=3_000,
    send_rabbit=10_000,
    delay_rabbit=1_500,
    ticks=500,
    history=100_000,
    stream=10,
    bulk=2_000,
)


@dataclass(frozen=True)
class Plan:
    """What every measurement is given.

    :param remembered: Celery's turns, where each is taken only once; ``None`` where it has its turn in every round.
    """

    sizes: Sizes
    molds: Molds
    machine: Machine
    remembered: dict[tuple[str, str], Any] | None = None

    def in_turns(self, measured: str, contenders: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Let every contender have its turn in every round, so that drift of the machine meets all alike."""
        samples: dict[str, list[T]] = {name: [] for name in contenders}
        for number in range(1, self.sizes.rounds + 1):
            for name, turn in contenders.items():
                self.machine.pace()
                tell(f"{measured}: {name}, round {number} of {self.sizes.rounds}")
                samples[name].append(self._take(measured, name, turn))
        return samples

    def _take(self, measured: str, name: str, turn: Callable[[], T]) -> T:
        if self.remembered is None or not name.lower().startswith("celery"):
            return turn()
        if (measured, name) not in self.remembered:
            self.remembered[measured, name] = turn()
        found: T = self.remembered[measured, name]
        return found


def tell(text: str) -> None:
    """Say what goes on, apart from the table."""
    print(f"  {text}", file=sys.stderr, flush=True)
