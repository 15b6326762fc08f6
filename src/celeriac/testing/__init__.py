"""What others need to test with celeriac: suites that prove an adapter. Needs pytest and pytest-asyncio."""

import pytest

pytest.register_assert_rewrite("celeriac.testing.broker_contract", "celeriac.testing.backend_contract")

from celeriac.testing.contracts import BackendContract, BrokerContract  # noqa: E402 - after the rewriting

__all__ = ["BackendContract", "BrokerContract"]
