"""Tasks that use the database."""

import os
import threading
from functools import partial

from celery import shared_task
from django.db import connection, transaction

from shop.models import Order


@shared_task
def pay(order_id: int) -> str:
    order = Order.objects.get(pk=order_id)
    order.paid = True
    order.save()
    return order.name


@shared_task
def look() -> list:
    """Tell where this runs, whether its database connection was closed before, and leave it open."""
    was_closed = connection.connection is None
    Order.objects.count()
    return [os.getpid(), threading.current_thread() is threading.main_thread(), was_closed]


@shared_task
def break_connection() -> None:
    """Leave a connection that looks open and is not."""
    Order.objects.count()
    connection.connection.close()


def on_commit(task, *args):
    """Send a task once the transaction is committed; before Celery 5.4 by Django's own function."""
    if hasattr(task, "delay_on_commit"):
        task.delay_on_commit(*args)
    else:
        transaction.on_commit(partial(task.delay, *args))


@shared_task
def buy(name: str, commits: bool) -> int:
    """Send the payment of a new order once it is committed."""
    try:
        with transaction.atomic():
            order = Order.objects.create(name=name)
            on_commit(pay, order.pk)
            if not commits:
                raise RuntimeError("changed their mind")
    except RuntimeError:
        return 0
    return order.pk


@shared_task
def total(values: list) -> int:
    return len(values)


@shared_task
def leave_open(how: str) -> str:
    """Write, and leave the transaction of that open."""
    if how == "atomic":
        transaction.atomic().__enter__()
    else:
        transaction.set_autocommit(False)
    order = Order.objects.create(name=how)
    if how == "fails":
        raise ValueError(how)
    return order.name
