"""The same for the package django-tasks, for Django before 6: ``celeriac.integrations.django_tasks.TasksBackend``."""

from celeriac.integrations.django_bridge.backend import backend_class

TasksBackend = backend_class("django_tasks")
"""Sends ``django_tasks`` tasks to the workers of the app that ``OPTIONS["APP"]`` names."""
