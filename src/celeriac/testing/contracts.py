"""The suites that every broker and every result store passes, ours and those of third parties.

Rules: a subclass names the adapter by fixtures, the tests are inherited; each test has an empty place of its own, and
waits for signals, never for time to pass, unless passing time is what it is about. Needs pytest and pytest-asyncio.
"""

import sys

import pytest

_SUITES = {
    f"celeriac.testing.{kind}_contract"
    for kind in (
        "backend",
        "beat",
        "board",
        "broker",
        "chord",
        "failed",
        "fanout",
        "once",
        "removal",
        "revocation",
        "schedule",
        "settlement",
    )
}
pytest.register_assert_rewrite(*(_SUITES - sys.modules.keys()))

from celeriac.testing.backend_contract import BackendContract  # noqa: E402 - after the rewriting
from celeriac.testing.beat_contract import BeatContract, SlotsContract  # noqa: E402
from celeriac.testing.board_contract import (  # noqa: E402
    BoardContract,
    LeasesContract,
    MarksContract,
    SetsContract,
    WindowsContract,
)
from celeriac.testing.broker_contract import BrokerContract, Plant  # noqa: E402
from celeriac.testing.chord_contract import ChordContract  # noqa: E402
from celeriac.testing.failed_contract import FailedContract  # noqa: E402
from celeriac.testing.fanout_contract import FanoutContract  # noqa: E402
from celeriac.testing.once_contract import OnceContract  # noqa: E402
from celeriac.testing.removal_contract import RemovalContract  # noqa: E402
from celeriac.testing.revocation_contract import RevocationContract  # noqa: E402
from celeriac.testing.schedule_contract import ScheduleContract  # noqa: E402
from celeriac.testing.settlement_contract import SettlementContract  # noqa: E402

__all__ = [
    "BackendContract",
    "BeatContract",
    "BoardContract",
    "BrokerContract",
    "ChordContract",
    "FailedContract",
    "FanoutContract",
    "LeasesContract",
    "MarksContract",
    "OnceContract",
    "Plant",
    "RemovalContract",
    "RevocationContract",
    "ScheduleContract",
    "SetsContract",
    "SettlementContract",
    "SlotsContract",
    "WindowsContract",
]
