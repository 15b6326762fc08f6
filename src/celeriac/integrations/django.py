"""A backend of Django's tasks (Django 6: "Django's Tasks framework"): ``celeriac.integrations.django.TasksBackend``."""

from celeriac.integrations.django_bridge.backend import backend_class

TasksBackend = backend_class("django.tasks")
"""Sends ``django.tasks`` tasks to the workers of the app that ``OPTIONS["APP"]`` names."""
