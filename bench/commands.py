"""Counts the commands that a Redis server has run."""

from collections import Counter

import redis


def commands_of(client: "redis.Redis") -> Counter[str]:
    """Return how often the server has run each command since it started, those inside scripts included.

    Without ``INFO`` itself, so that looking changes nothing. The difference of two looks is what was run between them.
    """
    stats = client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}
    return Counter({name: calls for name, calls in counts.items() if name != "info"})
