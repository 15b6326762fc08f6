"""The pictures of the documentation."""

from pathlib import Path

from tests.web.screenshots import ROOT, take


def test_the_pictures_of_the_documentation_can_be_taken_anew(tmp_path: Path):
    for picture in take(tmp_path):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert (ROOT / "docs" / "images" / picture.name).exists()
