"""Measures celeriac beside Celery: same Redis, same machine, same messages, in turns. See README.md."""
