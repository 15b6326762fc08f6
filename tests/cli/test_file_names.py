"""The names of log and pid files, as init scripts write them for Celery's worker."""

from pathlib import Path

import pytest
from celery.utils.nodenames import node_format

from celeriac.cli.file_names import file_named


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("/log/%n%I.log", "/log/w1.log"),
        ("/log/%p-%h-%d-%i.log", "/log/w1@box.example.org-box.example.org-example.org-0.log"),
        ("/log/100%%.log", "/log/100%.log"),
    ],
)
def test_a_name_is_celerys(template: str, name: str) -> None:
    assert file_named(template, "w1@box.example.org") == Path(name)
    assert node_format(template, "w1@box.example.org") == name


def test_what_celery_does_not_know_stays() -> None:
    assert file_named("/log/%Y.log", "w1@box") == Path("/log/%Y.log")
