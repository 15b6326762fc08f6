"""Runs an app of Celery's as it is; the only package that imports Celery."""
