"""Closes what a real Celery client opened: left to the garbage collector, its sockets fail whatever test runs then."""

import gc

from celery import Celery


def disconnect(app: Celery) -> None:
    """Close the app's connections, and the result backend's of the thread that calls.

    Celery makes a backend, with connections of its own, for each thread that asks: send and wait in one thread alone.
    """
    backend = app.backend
    # Results of workflows are kept and refer to each other in circles; they unsubscribe when they are collected.
    backend._pending_results.concrete.clear()
    gc.collect()
    # A database is looked at, not listened to; the consumer of rpc:// cannot be stopped before it was started.
    consumer = getattr(backend, "result_consumer", None)
    if getattr(consumer, "_consumer", consumer) is not None:
        consumer.stop()
        # A result that is collected later unsubscribes: Celery 5.3 connects for that, and nobody closes it.
        consumer._pubsub = None
    if hasattr(backend, "client"):
        backend.client.connection_pool.disconnect()
    # `close` forgets its pools without closing what they hold; other clients of the same broker share them.
    # They are filled again, since kombu would wait for ever for what is not in them.
    for pool in (app.producer_pool, app.pool):
        pool.force_close_all(close_pool=False)
        pool.setup()
    app.close()
