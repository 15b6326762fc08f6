"""The app of a process that only ticks, and has nothing to tick for hours."""

from celeriac import Celeriac

app = Celeriac("bench-beat")
for number in range(100):
    app.schedule(f"entry {number}", "bench.tasks.add", 86400.0 + number, args=(2, 3))
