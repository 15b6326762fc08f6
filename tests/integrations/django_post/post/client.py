"""What a web process does with the tasks; prints what it saw as JSON."""

import asyncio
import json
import sys
import time
from datetime import timedelta

import django

django.setup()

from django.conf import settings  # noqa: E402 - Django is set up first
from django.core.management import call_command  # noqa: E402
from django.utils import timezone  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

from post import tasks  # noqa: E402

TIMEOUT = 60
missing = import_string(f"{settings.PACKAGE}.exceptions.TaskResultDoesNotExist")
mismatch = import_string(f"{settings.PACKAGE}.exceptions.TaskResultMismatch")


def ended(result):
    deadline = time.monotonic() + TIMEOUT
    while not result.is_finished and time.monotonic() < deadline:
        time.sleep(0.02)
        result.refresh()
    assert result.is_finished, result
    return result


async def awaited():
    result = await tasks.wait.aenqueue(0.01)
    async with asyncio.timeout(TIMEOUT):
        while not result.is_finished:
            await asyncio.sleep(0.02)
            await result.arefresh()
    again = await tasks.wait.aget_result(result.id)
    return [result.return_value, again.return_value]


def errors_of(result):
    return [[error.exception_class.__name__, "raise" in error.traceback] for error in result.errors]


def raised(kind, work):
    try:
        work()
    except kind:
        return True
    return False


def main():
    call_command("check", stdout=sys.stderr)
    first = tasks.add.enqueue(1, y=2)
    was = first.status
    done = ended(first)
    found = {"first": [was, done.status, done.return_value, done.attempts, done.worker_ids]}
    found["times"] = done.enqueued_at <= done.started_at <= done.finished_at
    found["arguments"] = [tasks.add.get_result(done.id).args, tasks.add.get_result(done.id).kwargs]
    found["awaited"] = asyncio.run(awaited())
    looked = ended(tasks.look.enqueue(3, [4]))
    found["looked"] = [looked.return_value[0] == looked.id, *looked.return_value[1:]]
    looked = ended(tasks.look_from_a_coroutine.enqueue())
    found["looked_from_a_coroutine"] = looked.return_value == looked.id
    failed = ended(tasks.fail.enqueue())
    found["failed"] = [failed.status, errors_of(failed), raised(ValueError, lambda: failed.return_value)]
    found["not_json"] = [name for name, _ in errors_of(ended(tasks.not_json.enqueue()))]
    found["bad_argument"] = raised(TypeError, lambda: tasks.add.enqueue(object(), 1))
    later = timezone.now() + timedelta(seconds=1)
    found["later"] = ended(tasks.add.using(run_after=later).enqueue(1, 1)).started_at >= later
    found["slow"] = [
        tasks.add.using(queue_name="slow", priority=priority).enqueue(priority, 0).status
        for priority in (-100, 0, 100)
    ]
    found["missing"] = raised(missing, lambda: tasks.add.get_result("nowhere"))
    found["mismatch"] = raised(mismatch, lambda: tasks.look.get_result(done.id))
    found["ids"] = [done.id, failed.id]
    return found


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
