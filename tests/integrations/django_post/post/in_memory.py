"""What a test does that runs the tasks in memory; prints what it saw as JSON."""

import json
import sys

import django

django.setup()

from post.own import app  # noqa: E402 - Django is set up first
from post.tasks import add, fail, look, wait  # noqa: E402

if __name__ == "__main__":
    with app.testing() as tasks:
        results = [add.enqueue(1, 2), wait.enqueue(0), look.enqueue(), fail.enqueue()]
        for result in results:
            result.refresh()
        sent = [one.task for one in tasks.sent]
    json.dump([[result.status for result in results], results[0].return_value, sent], sys.stdout)
