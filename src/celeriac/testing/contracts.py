"""The suites that every broker and every result store passes, ours and those of third parties.

Rules: a subclass names the adapter by fixtures, the tests are inherited; each test has an empty place of its own, and
waits for signals, never for time to pass, unless passing time is what it is about.
"""

from celeriac.testing.backend_contract import BackendContract
from celeriac.testing.broker_contract import BrokerContract

__all__ = ["BackendContract", "BrokerContract"]
