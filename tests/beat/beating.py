"""The app of a process that only ticks; takes BROKER, BACKEND, NAME, QUEUE, ENTRIES, EVERY of the environment."""

import os

from celeriac import Celeriac

app = Celeriac(
    os.environ["NAME"],
    os.environ["BROKER"],
    os.environ["BACKEND"],
    default_queue=os.environ["QUEUE"],
    lease=float(os.environ.get("LEASE", "1")),
)
for number in range(int(os.environ["ENTRIES"])):
    app.schedule(f"entry {number}", f"shop.task{number}", float(os.environ["EVERY"]) * (1 + number % 3))
