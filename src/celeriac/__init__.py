"""An asyncio-native client and worker for the Celery distributed task queue."""

from celeriac.celeriac import Celeriac
from celeriac.context import Context, current_context
from celeriac.errors import (
    ArgumentError,
    BackendError,
    BackendUnavailable,
    BrokerError,
    BrokerUnavailable,
    CeleriacError,
    ConfigError,
    Ignore,
    Reject,
    RemoteError,
    ResultMissing,
    ResultTimeout,
    SoftTimeLimitExceeded,
    TaskError,
    TaskNotFound,
    TaskRevoked,
    TimeLimitExceeded,
    WorkerLost,
)
from celeriac.outbox import Call
from celeriac.result import Result, as_completed
from celeriac.retry import Retry
from celeriac.settings import Settings
from celeriac.task import Task

__all__ = [
    "ArgumentError",
    "BackendError",
    "BackendUnavailable",
    "BrokerError",
    "BrokerUnavailable",
    "Call",
    "Celeriac",
    "CeleriacError",
    "ConfigError",
    "Context",
    "Ignore",
    "Reject",
    "RemoteError",
    "Result",
    "ResultMissing",
    "ResultTimeout",
    "Retry",
    "Settings",
    "SoftTimeLimitExceeded",
    "Task",
    "TaskError",
    "TaskNotFound",
    "TaskRevoked",
    "TimeLimitExceeded",
    "WorkerLost",
    "as_completed",
    "current_context",
]
