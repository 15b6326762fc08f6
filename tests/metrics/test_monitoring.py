"""The reference of metrics, and what the monitoring example makes of them."""

import json
import re
from collections.abc import Iterator

import yaml

from celeriac.metrics.counts import Snapshot
from celeriac.metrics.families import Families
from celeriac.metrics.queues import BrokerNumbers, QueueNumbers
from tests.docs.pages import ROOT
from tests.docs.test_reference import rows

EXAMPLE = ROOT / "examples" / "monitoring"


def exposed() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each family, by the name of its samples."""
    snapshot = Snapshot("host", lag=0.0, broker_up=True, backend_up=True, schedule_lag=0.0, leases_renewed=0)
    queue = QueueNumbers("queue", 0, 0.0, consumers=0)
    found = {}
    for family in Families().of(snapshot, BrokerNumbers([queue], parked=0, taken=0, dead=0, failed=0)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, set(getattr(family, "_labelnames", ())))
    return found


def documented() -> dict[str, tuple[str, set[str]]]:
    cells = {name: rest.split("|") for name, rest in rows("metrics.md", "metrics").items()}
    return {name: (rest[0].strip(), set(re.findall(r"`(\w+)`", rest[1]))) for name, rest in cells.items()}


def test_every_metric_with_type_and_labels():
    assert exposed() == documented()


def expressions() -> Iterator[str]:
    rules = yaml.safe_load((EXAMPLE / "alerts.yml").read_text())
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])
    dashboard = json.loads((EXAMPLE / "dashboard.json").read_text())
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    yield from (variable["query"] for variable in dashboard["templating"]["list"])
    how_to = (ROOT / "docs/how-to/metrics.md").read_text()
    yield from re.findall(r"^\| `([^`]+)` \| \w", how_to, re.MULTILINE)


def test_the_example_and_the_page_ask_for_metrics_that_exist():
    known = documented()
    found = [expression for expression in expressions() if "up{" not in expression]
    assert len(found) > 20
    for expression in found:
        names = set(re.findall(r"\bceler(?:y|iac)_\w+", expression))
        assert names, expression
        for name in names:
            stem = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in known or known.get(stem, ("", set()))[0] == "histogram", name


def test_labels_that_are_asked_for_exist():
    for expression in expressions():
        for name, labels in re.findall(r"\b(celer(?:y|iac)_\w+)\{([^}]*)\}", expression):
            stem = re.sub(r"_(bucket|sum|count)$", "", name)
            wanted = set(re.findall(r"(\w+)=", labels))
            has = (documented().get(name) or documented()[stem])[1]
            assert wanted <= has, (name, wanted - has)


def test_the_files_of_the_example_are_those_that_it_mounts():
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
    mounted = {
        volume.split(":")[0].removeprefix("./")
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
    }
    present = {file.name for file in EXAMPLE.iterdir() if file.is_file()}
    assert mounted == {*present, "../.."} - {"compose.yaml"}
    prometheus = yaml.safe_load((EXAMPLE / "prometheus.yml").read_text())
    assert prometheus["rule_files"] == ["alerts.yml"]
    port = prometheus["scrape_configs"][0]["dns_sd_configs"][0]["port"]
    assert f"--metrics-port {port}" in compose["services"]["worker"]["command"]
