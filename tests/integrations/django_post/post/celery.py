"""The app as a Celery app."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "post.settings")
app = Celery("post")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
