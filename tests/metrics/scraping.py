"""Reads metrics as Prometheus does."""

from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from celeriac.metrics.app_metrics import AppMetrics


class Scrape:
    """The samples of one scrape. Raises for text that is no exposition, and for a sample that is there twice."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in self.families.values():
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self._samples, key
                self._samples[key] = sample.value

    def value(self, name: str, /, **labels: str) -> float:
        """The sum of the samples of this name that have these labels, among others."""
        found = self.found(name, **labels)
        assert found, f"there is no {name} {labels}"
        return sum(found)

    def found(self, name: str, /, **labels: str) -> list[float]:
        """The values of those samples."""
        wanted = set(labels.items())
        return [value for (key, has), value in self._samples.items() if key == name and wanted <= has]

    def labels(self, name: str) -> list[Mapping[str, str]]:
        """The labels of each sample of this name."""
        return [dict(has) for key, has in self._samples if key == name]


async def scrape(metrics: AppMetrics) -> Scrape:
    """What the ASGI app serves."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await metrics({"type": "http", "query_string": b"", "headers": []}, receive, send)
    assert sent[0]["status"] == 200
    return Scrape(sent[1]["body"].decode())
