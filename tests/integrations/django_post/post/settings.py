"""A Django project with tasks of Django's framework; which one, and which app carries them, says the environment."""

import os

PACKAGE = os.environ["POST_PACKAGE"]
MODULE = "django" if PACKAGE == "django.tasks" else "django_tasks"

SECRET_KEY = "of a test"
USE_TZ = True
INSTALLED_APPS = ["post"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TASKS = {
    "default": {
        "BACKEND": f"celeriac.integrations.{MODULE}.TasksBackend",
        "QUEUES": ["default", "slow"],
        "OPTIONS": {"APP": os.environ["POST_APP"]},
    }
}
CELERY_BROKER_URL = os.environ["POST_BROKER"]
CELERY_RESULT_BACKEND = os.environ["POST_BROKER"]
CELERY_TASK_DEFAULT_QUEUE = os.environ["POST_QUEUE"]
CELERY_TASK_ALWAYS_EAGER = bool(os.environ.get("POST_EAGER"))
