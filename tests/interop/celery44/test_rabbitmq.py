"""The same on RabbitMQ, results by ``rpc://``."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.amqp.conftest import RESULTS, celeriac_client, celeriac_serving
from tests.interop.celery44.client import OldCeleryClient
from tests.interop.celery44.conftest import old_worker
from tests.interop.celery_worker import CeleryWorker
from tests.interop.test_calls import (
    test_a_retried_task_keeps_its_id_and_counts,
    test_an_exception_class_of_the_application_is_raised_again,
    test_arguments_arrive_as_they_were_sent,
    test_progress_is_seen_while_the_task_runs,
)
from tests.interop.test_links import *  # noqa: F403 - a table is taken whole
from tests.interop.test_times import test_a_countdown_is_waited_for

__all__ = [
    "celeriac_client",
    "celeriac_serving",
    "test_a_countdown_is_waited_for",
    "test_a_retried_task_keeps_its_id_and_counts",
    "test_an_exception_class_of_the_application_is_raised_again",
    "test_arguments_arrive_as_they_were_sent",
    "test_progress_is_seen_while_the_task_runs",
]


@pytest.fixture(scope="module")
def celery_worker(rabbit_url: str, old_python: Path) -> Iterator[CeleryWorker]:
    with old_worker(old_python, rabbit_url, RESULTS) as worker:
        yield worker


@pytest.fixture(scope="module")
def celery_client(rabbit_url: str, old_python: Path) -> Iterator[OldCeleryClient]:
    client = OldCeleryClient(old_python, rabbit_url, RESULTS)
    yield client
    client.close()
