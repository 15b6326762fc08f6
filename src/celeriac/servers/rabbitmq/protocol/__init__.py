"""AMQP 0-9-1 for asyncio, on the frame codec of pamqp; knows RabbitMQ, not tasks.

Rules: pamqp reads and writes every method; the three frames that each message costs (publish, deliver, content header)
are read and written here, because their cost is the cost of a task, and because header tables must be written as other
Celery clients write them. See docs/adr/0008-amqp-frames-on-pamqp.md.
"""
