"""Celery's wire format: bytes to frozen records and back, without I/O, clock or driver.

Rules: the records of the hot path are not tracked by the garbage collector (``gc=False``): nothing that one holds can
refer back to it, and tracking thousands of them costs more than making them.
"""
