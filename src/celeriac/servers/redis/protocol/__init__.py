"""Redis's protocol on asyncio: a connection, its login, and what sentinels say; hiredis reads and writes the bytes.

Rules: nothing here knows of queues, results or URLs, nor of celeriac's errors.
"""
