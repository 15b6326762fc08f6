"""Tasks that use the database."""

import os
import threading

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


@shared_task
def buy(name: str, commits: bool) -> int:
    """Send the payment of a new order once it is committed."""
    try:
        with transaction.atomic():
            order = Order.objects.create(name=name)
            pay.delay_on_commit(order.pk)
            if not commits:
                raise RuntimeError("changed their mind")
    except RuntimeError:
        return 0
    return order.pk


@shared_task
def total(values: list) -> int:
    return len(values)
