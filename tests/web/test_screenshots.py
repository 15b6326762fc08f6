"""The pictures of the documentation."""

from pathlib import Path

from tests.web.screenshots import ROOT, take

LARGEST = 150_000
"""Bytes of one picture: who clones the repository gets each that ever was."""


def test_the_pictures_of_the_documentation_can_be_taken_anew(tmp_path: Path):
    terminal, *pages = take(tmp_path)
    assert "fails&#160;for&#160;good" in terminal.read_text()
    assert "http" not in terminal.read_text().replace("http://www.w3.org/2000/svg", "")
    for picture in pages:
        assert picture.read_bytes().startswith(b"\x89PNG")
    for picture in (terminal, *pages):
        assert picture.stat().st_size < LARGEST
        assert (ROOT / "docs" / "images" / picture.name).exists()
