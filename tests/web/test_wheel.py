"""A wheel holds all that the dashboard needs, and nothing of it comes from npm."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from celeriac.web.pages import PAGES
from tests.web.site import Site

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "src" / "celeriac" / "web"


def run(*command: str | Path) -> str:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, made as `make wheel` makes it, without Node on the PATH."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    command = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source]
    run("env", "PATH=/nowhere", sys.executable, "-m", "pip", *command)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtualenv with that wheel in it, which sees the libraries of this one, and not its celeriac."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_it_holds_every_page_and_every_file_that_pages_load(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    files = [path for name in ("templates", "static") for path in (WEB / name).iterdir()]
    assert len(files) > 15
    assert {f"celeriac/web/{path.relative_to(WEB).as_posix()}" for path in files} <= held
    assert not [name for name in held if "node_modules" in name or "/tests/" in name]
    assert wheel.stat().st_size < 2_000_000


def test_installed_it_serves_every_page(python: Path, tmp_path: Path):
    where = run("env", "-C", tmp_path, python, "-c", "import celeriac; print(celeriac.__file__)").strip()
    assert Path(where).is_relative_to(python.parents[1])
    run(python, "-c", f"import sqlite3; sqlite3.connect({str(tmp_path / 'shop.db')!r})")
    with Site(f"sqlite:///{tmp_path / 'shop.db'}", tmp_path, python=str(python)) as site:
        for path in PAGES:
            if "{" not in path:
                assert "<h1>" in site.page(path.lstrip("/"))
        assert "color-scheme" in site.page("static/style.css")
        assert "EventSource" in site.page("static/page.js")
