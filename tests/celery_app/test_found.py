"""A Celery app is found by ``-A`` as Celery finds it, and connects to where its settings say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from celery.app.utils import find_app

from celeriac.celery_app.found import Found
from celeriac.cli.target import load_app
from celeriac.errors import ConfigError

APP = "from celery import Celery\n{name} = Celery('{main}', broker='redis://here/1', set_as_current=False)\n"

Write = Callable[[str, str], None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    return f"proj_{uuid4().hex}"


def test_what_a_childs_servers_need_is_imported_before_it_is_forked(
    package: str, write: Write, tmp_path: Path
) -> None:
    write(f"{package}.py", APP.format(name="app", main=package))
    program = (
        "import sys; from celeriac.celery_app.children import app_of; "
        f"app_of({package!r}); print('celeriac.servers.redis.results' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "True"


@pytest.fixture
def write(tmp_path: Path, package: str) -> Iterator[Write]:
    def write_it(file: str, text: str) -> None:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write_it
    for name in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[name]


def found(target: str) -> Found:
    app = load_app(target)
    assert isinstance(app, Found)
    assert app.celery is find_app(target)
    return app


@pytest.mark.parametrize("name", ["app", "celery", "celery_app", "anything"])
def test_an_app_in_a_module(write: Write, package: str, name: str) -> None:
    write(f"{package}.py", APP.format(name=name, main="one"))
    app = found(package)
    assert (app.name, app.broker_url, app.target) == ("one", "redis://here/1", package)
    assert found(f"{package}:{name}").celery is app.celery
    assert found(f"{package}.{name}").celery is app.celery


def test_an_app_in_the_celery_module_of_a_package(write: Write, package: str) -> None:
    write(f"{package}/__init__.py", "")
    write(f"{package}/celery.py", APP.format(name="app", main="inner"))
    targets = (package, f"{package}.celery", f"{package}.celery:app", f"{package}.celery.app")
    assert {found(target).name for target in targets} == {"inner"}


def test_an_app_that_a_package_hands_on(write: Write, package: str) -> None:
    """The convention of Django projects: the package imports the app, under another name, to have it loaded."""
    write(f"{package}/__init__.py", "from .celery import app as celery_app\n__all__ = ('celery_app',)\n")
    write(f"{package}/celery.py", APP.format(name="app", main="django"))
    assert found(package).name == "django"


def test_the_first_of_several_apps_by_celerys_rules(write: Write, package: str) -> None:
    write(
        f"{package}.py",
        APP.format(name="other", main="other") + APP.format(name="app", main="chosen"),
    )
    assert found(package).name == "chosen"


def test_settings_by_config_from_object(write: Write, package: str) -> None:
    write(f"{package}_conf.py", "CELERY_BROKER_URL = 'redis://there'\nCELERY_TASK_ACKS_LATE = True\n")
    write(
        f"{package}.py",
        "from celery import Celery\napp = Celery('x', set_as_current=False)\n"
        f"app.config_from_object('{package}_conf', namespace='CELERY')\n",
    )
    app = found(package)
    assert app.broker_url == "redis://there/"
    assert app.settings.delivery == "at_least_once"


def test_modules_to_include_are_imported_by_celerys_loader(write: Write, package: str) -> None:
    write(f"{package}.py", APP.format(name="app", main="one"))
    app = load_app(package, ["shop.tasks"])
    assert isinstance(app, Found)
    assert "shop.tasks" in app.celery.conf.include


def test_modules_to_include_beside_an_app_of_celeriacs(write: Write, package: str) -> None:
    write(f"{package}.py", "from celeriac import Celeriac\napp = Celeriac('own')\n")
    write(f"{package}_more.py", f"from {package} import app\n\n@app.task(name='more')\ndef more(): ...\n")
    assert "more" in load_app(package, [f"{package}_more"]).tasks
    with pytest.raises(ConfigError, match="-I nowhere"):
        load_app(package, ["nowhere"])


def test_a_url_of_the_command_line_is_for_the_apps_own_senders_too(write: Write, package: str) -> None:
    write(f"{package}.py", APP.format(name="app", main="one"))
    app = found(package)
    app.connect_to("redis://elsewhere", "redis://results")
    assert (app.broker_url, app.backend_url) == ("redis://elsewhere", "redis://results")
    assert app.celery.connection_for_write().hostname == "elsewhere"
    assert app.celery.conf.result_backend == "redis://results"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("app.config_from_object('no_such_module_at_all')", "No module named 'no_such_module_at_all'"),
        ("app.conf.worker_concurrency = 'many'", "worker_concurrency='many' is not a number"),
        ("app.conf.broker_url = 'sqs://'", "does not take from sqs://"),
    ],
)
def test_settings_that_cannot_be_used(write: Write, package: str, text: str, said: str) -> None:
    write(f"{package}.py", f"{APP.format(name='app', main='one')}{text}\n")
    with pytest.raises(ConfigError, match=f"-A {package}: .*{said}"):
        load_app(package)
