"""Queues and results in Redis, as kombu and Celery keep them.

Needs Redis 6.2 or newer (or Valkey), not a cluster: a script touches the keys of several queues.
"""
