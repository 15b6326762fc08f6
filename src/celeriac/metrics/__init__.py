"""Numbers for Prometheus, under the names of celery-exporter where they mean the same."""
