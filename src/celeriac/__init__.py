"""An asyncio-native client and worker for the Celery distributed task queue."""
