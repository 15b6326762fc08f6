"""A project's own tests, with Django's test case: the tasks run within its transaction."""

from django.test import TestCase

from shop.models import Order
from shop.own import app, pay


class OrderTest(TestCase):
    """One order."""

    def setUp(self):
        self.tasks = self.enterContext(app.testing())
        self.order = Order.objects.create(name="tea")

    def test_paying(self):
        assert pay.delay(self.order.pk).get() == "tea"
        self.order.refresh_from_db()
        assert self.order.paid
        assert [sent.task for sent in self.tasks.sent] == ["shop.own.pay"]

    def test_paying_at_the_commit(self):
        with self.captureOnCommitCallbacks(execute=True):
            pay_at_commit(self.order)
        self.order.refresh_from_db()
        assert self.order.paid

    def test_an_order_that_is_not_there(self):
        with self.assertRaises(Order.DoesNotExist):  # noqa: PT027 - Django runs it
            pay.delay(-1).get()


def pay_at_commit(order):
    from django.db import transaction

    transaction.on_commit(lambda: pay.delay(order.pk))
