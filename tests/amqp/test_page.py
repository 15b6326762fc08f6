"""What the page on RabbitMQ says works, works."""

from pathlib import Path

from tests.docs.pages import ROOT
from tests.docs.reader import RABBIT, Reader


def test_the_page_does_what_it_says(rabbit_url: str, tmp_path: Path) -> None:
    with Reader(tmp_path, RABBIT, rabbit_url.removesuffix("/")) as reader:
        assert reader.follow(ROOT / "docs" / "how-to" / "rabbitmq.md") > 0
