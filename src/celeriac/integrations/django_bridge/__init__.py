"""Between Django's tasks and an app: what the backends for ``django.tasks`` and ``django_tasks`` share."""
