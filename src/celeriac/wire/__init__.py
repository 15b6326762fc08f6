"""Celery's wire format: bytes to frozen records and back, without I/O, clock or driver."""
