"""Tasks of Django's framework."""

import asyncio
import json
import os
from pathlib import Path

from django.conf import settings
from django.dispatch import receiver

if settings.PACKAGE == "django.tasks":
    from django.tasks import task
    from django.tasks.signals import task_finished, task_started
else:
    from django_tasks import task
    from django_tasks.signals import task_finished, task_started


@receiver([task_started, task_finished])
def note(sender, task_result, **_):
    with Path(os.environ["POST_NOTES"]).open("a") as file:
        file.write(json.dumps([sender.__name__, task_result.id, task_result.status]) + "\n")


@task
def add(x, y):
    return x + y


@task
async def wait(seconds):
    await asyncio.sleep(seconds)
    return ("waited", seconds)


@task(takes_context=True)
def look(context, *facts):
    result = context.task_result
    return [result.id, context.attempt, result.status, result.args, list(facts)]


@task(takes_context=True)
async def look_from_a_coroutine(context):
    return context.task_result.id


@task
def fail():
    raise LookupError("not there")


@task
def not_json():
    return object()
