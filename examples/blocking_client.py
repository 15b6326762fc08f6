"""What a Django view or a script does: no event loop; the worker here runs in a thread of its own."""

from celeriac import Celeriac

app = Celeriac("invoices")


@app.task
def invoice(order: int) -> str:
    return f"invoice-{order}.pdf"


def view(order: int) -> str:
    """Send, and hand out the id."""
    return invoice.delay(order).id


def main() -> None:
    task_id = view(7)

    worker = app.worker()
    worker.start()
    try:
        result = app.result(task_id)
        print(result.get(timeout=10), result.state)
        urgent = invoice.using(priority=0, queue="celery", expires=60).delay(8)
        print(urgent.get(timeout=10))
        print(invoice.apply_async((9,), task_id="nine").id)  # Celery's spelling
    finally:
        worker.stop()


if __name__ == "__main__":
    main()
