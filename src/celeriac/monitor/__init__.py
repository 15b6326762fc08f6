"""Watches a fleet: what became of each task, which workers live, what fails; the source of the dashboard.

It knows a fleet from the events of its workers, Celery's too, and keeps what it learns in a file of its own.
"""
