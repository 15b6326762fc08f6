"""The names of ``celeriac`` that users import."""

from celeriac.canvas.celery_form import from_dict
from celeriac.canvas.diagram import graphviz, mermaid
from celeriac.canvas.nodes import Chain, Chord, Group, Node, Signature, chain, chord, group
from celeriac.celeriac import Celeriac
from celeriac.client.outbox import Call
from celeriac.client.result import GroupResult, Progress, Result, as_completed, workflow_progress
from celeriac.client.send_listeners import Outgoing, SendListener
from celeriac.client.task import Task
from celeriac.context import Context, current_context
from celeriac.errors import (
    ArgumentError,
    BackendError,
    BackendUnavailable,
    BrokerError,
    BrokerUnavailable,
    CeleriacError,
    ChordError,
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
from celeriac.retry import Retry
from celeriac.schedule.crontab import crontab
from celeriac.schedule.solar import solar
from celeriac.settings import Settings
from celeriac.worker.listeners import Listener

__all__ = [
    "ArgumentError",
    "BackendError",
    "BackendUnavailable",
    "BrokerError",
    "BrokerUnavailable",
    "Call",
    "Celeriac",
    "CeleriacError",
    "Chain",
    "Chord",
    "ChordError",
    "ConfigError",
    "Context",
    "Group",
    "GroupResult",
    "Ignore",
    "Listener",
    "Node",
    "Outgoing",
    "Progress",
    "Reject",
    "RemoteError",
    "Result",
    "ResultMissing",
    "ResultTimeout",
    "Retry",
    "SendListener",
    "Settings",
    "Signature",
    "SoftTimeLimitExceeded",
    "Task",
    "TaskError",
    "TaskNotFound",
    "TaskRevoked",
    "TimeLimitExceeded",
    "WorkerLost",
    "as_completed",
    "chain",
    "chord",
    "crontab",
    "current_context",
    "from_dict",
    "graphviz",
    "group",
    "mermaid",
    "solar",
    "workflow_progress",
]
