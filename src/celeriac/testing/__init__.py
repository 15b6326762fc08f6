"""What others need to test with celeriac.

Rules: each module is imported by its own name and brings only what it needs; ``contracts`` needs pytest and
pytest-asyncio, the others need nothing but celeriac.
"""
