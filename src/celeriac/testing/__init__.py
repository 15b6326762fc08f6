"""Tools for tests of programs that use celeriac, and of brokers and result stores for it.

Rules: each module is imported by its own name and brings only what it needs; ``contracts`` needs pytest and
pytest-asyncio, the others need nothing but celeriac.
"""
