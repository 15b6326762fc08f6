"""A Celery app, of which celeriac knows nothing, on celeriac's worker. Run `celeriac -A celery_app worker` beside it.

It takes the Redis that CELERY_BROKER_URL and CELERY_RESULT_BACKEND name.
"""

from typing import Any

from celery import Celery, Task, chord
from celery.signals import task_success
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)
app = Celery("shop")
app.conf.task_acks_late = True
app.conf.task_default_queue = "shop"


@app.task(name="shop.price", bind=True, autoretry_for=(ConnectionError,), retry_backoff=0.1, max_retries=3)
def price(self: Task, article: int) -> int:
    if self.request.retries == 0 and article == 2:
        raise ConnectionError("the price list is away")
    return 10 * article


@app.task(name="shop.bill")
def bill(prices: list) -> str:
    return f"{sum(prices)} for {len(prices)} articles"


@task_success.connect(sender=price)
def note(result: int, **kwargs: Any) -> None:
    logger.info("a price: %d", result)


def main() -> None:
    print(chord(price.s(article) for article in (1, 2, 3))(bill.s()).get(timeout=30))


if __name__ == "__main__":
    main()
