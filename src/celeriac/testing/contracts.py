"""The suites that every broker and every result store passes, ours and those of third parties.

Rules: a subclass names the adapter by fixtures, the tests are inherited; each test has an empty place of its own, and
waits for signals, never for time to pass, unless passing time is what it is about. Needs pytest and pytest-asyncio.
"""

import pytest

pytest.register_assert_rewrite("celeriac.testing.broker_contract", "celeriac.testing.backend_contract")

from celeriac.testing.backend_contract import BackendContract  # noqa: E402 - after the rewriting
from celeriac.testing.broker_contract import BrokerContract  # noqa: E402

__all__ = ["BackendContract", "BrokerContract"]
