"""A Celery app in a Django project whose periodic tasks are in the tables of django-celery-beat.

Reads DATABASE, PERIODIC_BROKER, PERIODIC_QUEUE. Where the database is none yet, it makes the tables and some rows.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import django
from celery import Celery
from django.conf import settings

settings.configure(
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", ":memory:")}
    },
    INSTALLED_APPS=["django_celery_beat"],
    MIGRATION_MODULES={"django_celery_beat": None},  # the tables as they are, not in twenty steps
    USE_TZ=True,
    TIME_ZONE="Europe/Berlin",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
)
django.setup()

app = Celery("django_periodic", broker=os.environ.get("PERIODIC_BROKER"), set_as_current=False)
app.conf.update(
    task_default_queue=os.environ.get("PERIODIC_QUEUE", "periodic"),
    beat_max_loop_interval=1,
    beat_sync_every=1,  # it writes down what it sent after each task, not every three minutes
    beat_schedule={"off": {"task": "shop.off", "schedule": 0.5}},
)


def make():
    from django.core.management import call_command
    from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask

    call_command("migrate", verbosity=0, run_syncdb=True)
    second = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    nightly = CrontabSchedule.objects.create(minute="0", hour="3", timezone="Europe/Berlin")
    soon = ClockedSchedule.objects.create(clocked_time=datetime.now(UTC) + timedelta(seconds=1))
    PeriodicTask.objects.create(name="often", task="shop.often", interval=second, args=json.dumps([1]))
    PeriodicTask.objects.create(name="nightly", task="shop.nightly", crontab=nightly)
    PeriodicTask.objects.create(name="soon", task="shop.soon", clocked=soon, one_off=True)
    PeriodicTask.objects.create(name="off", task="shop.off", interval=second, enabled=False)
    PeriodicTask.objects.create(name="once", task="shop.once", interval=second, one_off=True)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    PeriodicTask.objects.create(name="later", task="shop.later", interval=second, start_time=tomorrow)
    past = datetime.now(UTC) - timedelta(hours=1)
    PeriodicTask.objects.create(name="expired", task="shop.expired", interval=second, expires=past)


if not Path(os.environ.get("DATABASE", __file__)).exists():
    make()
