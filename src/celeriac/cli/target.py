"""From what ``-A`` names to an app; the one place that imports by name.

Rules: the current directory comes first, as Celery has it; an error inside the user's module is distinguished from a
module that is not there, and says where it is. Where a module holds an app of Celery's and none of celeriac's, it is
found as Celery finds it.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from celeriac.client.app import App
from celeriac.client.blame import last_line
from celeriac.errors import ConfigError

if TYPE_CHECKING:
    from celery import Celery


def load_app(target: str, include: Sequence[str] = ()) -> App:
    """Return the app that ``module`` or ``module:attribute`` names.

    :param target: without an attribute the module must hold exactly one app. An app of Celery's is found as by Celery.
    :param include: further modules to import.

    Raises ``ConfigError``: no such module or attribute, a module cannot be imported, it holds no app or several; or a
    setting of a Celery app cannot be used.
    """
    app = find(target)
    if not isinstance(app, App):
        return _standing_for(app, target, include)
    for module in include:
        try:
            _import(module)
        except ModuleNotFoundError as error:
            raise ConfigError(f"-I {module}: {error}") from error
    _take_djangos_tasks(app, target)
    return app


def _take_djangos_tasks(app: App, target: str) -> None:
    """Register the tasks of Django's own framework that the setting ``TASKS`` gives to this app."""
    if "django.conf" in sys.modules:
        from celeriac.integrations.django_bridge.taking import take_tasks

        try:
            take_tasks(app)
        except (Exception, SystemExit) as error:
            raise _broken(target, error) from error


def _standing_for(celery: Celery, target: str, include: Sequence[str]) -> App:
    """Return the app that stands for one of Celery's, which reads its settings only now."""
    from celeriac.celery_app.app import CeleryApp
    from celeriac.celery_app.found import include as let_import

    try:
        let_import(celery, include)
        return CeleryApp(celery, target)
    except ConfigError as error:
        raise ConfigError(f"-A {target}: {error}") from error
    except (Exception, SystemExit) as error:
        raise _broken(target, error) from error


def find(target: str) -> App | Celery:
    """Return the app that ``module`` or ``module:attribute`` names, of whichever kind. Raises as ``load_app``."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    name, _, attribute = target.partition(":")
    if not name:
        raise ConfigError(f"-A {target}: name the module before the colon, such as -A shop:app")
    try:
        module = _import(name)
    except ModuleNotFoundError as error:
        app = None if attribute else _named_by_dots(name, str(error.name))
        if app is None:
            raise ConfigError(_not_found(name, str(error.name))) from error
        return app
    return _attribute(module, attribute) if attribute else _only_app(module)


def _import(name: str) -> ModuleType:
    """Import a module. Raises ``ModuleNotFoundError`` where there is none, ``ConfigError`` where it fails."""
    if name.startswith(".") and "/" not in name:
        raise ConfigError(f"-A {name}: name a module as from its own directory, without a dot in front")
    if name.endswith(".py") or "/" in name:
        module = name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(f"-A {name}: that is a file; give the module's name: -A {module}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _broken(name, error) from error
        raise
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _named_by_dots(name: str, missing: str) -> App | Celery | None:
    """Return the app of ``module.attribute``, as Celery's users write it."""
    parent = missing.rpartition(".")[0]
    found: Any = sys.modules.get(parent)
    for part in name.removeprefix(f"{parent}.").split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, App) or _is_celerys(found) else None


def _not_found(name: str, missing: str) -> str:
    parent, _, last = name.rpartition(".")
    found = sys.modules.get(parent)
    if found is not None and hasattr(found, last):
        return f"-A {name}: {last} is no module but a name in {parent}; write -A {parent}:{last}"
    path = list(getattr(found, "__path__", [])) if found is not None else [str(Path.cwd())]
    near = get_close_matches(
        missing.rpartition(".")[2], [entry.name for entry in pkgutil.iter_modules(path)], n=1
    )
    if near:
        return f"-A {name}: there is no module {missing}; did you mean {'.'.join(filter(None, (parent, near[0])))}?"
    return f"-A {name}: there is no module {missing} in {path[0] if path else parent} or on the Python path"


def _broken(name: str, error: BaseException) -> ConfigError:
    where = last_line(error) or name
    if isinstance(error, SystemExit):
        return ConfigError(
            f"-A {name}: the module ends the program when imported, at {where}; guard it with __main__"
        )
    text = " ".join(str(error).split())
    if not isinstance(error, ConfigError):
        text = f"{type(error).__name__}: {text}"
    return ConfigError(f"-A {name}: importing it failed at {where}: {text}")


def _attribute(module: ModuleType, path: str) -> App | Celery:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, [*_apps(module), *dir(found)], n=1)
            hint = f"did you mean {near[0]}?" if near else _suggestion(module)
            raise ConfigError(f"-A {module.__name__}:{path}: there is no {part}; {hint}")
        found = getattr(found, part)
    if not isinstance(found, App) and not _is_celerys(found):
        raise ConfigError(
            f"-A {module.__name__}:{path} is no app but a {type(found).__name__}; {_suggestion(module)}"
        )
    app: App | Celery = found
    return app


def _only_app(module: ModuleType) -> App | Celery:
    apps = _apps(module)
    different = list({id(app): app for app in apps.values()}.values())
    if len(different) == 1:
        return different[0]
    if different:
        names = " or ".join(f"-A {module.__name__}:{name}" for name in apps)
        raise ConfigError(f"-A {module.__name__}: there are {len(different)} apps in it; choose {names}")
    if any(_is_celerys(value) for value in vars(module).values()):
        return _as_celery_finds_it(module.__name__)
    inner = _celery_module(module)
    if inner is not None:
        return _only_app(inner)
    raise ConfigError(f"-A {module.__name__}: there is no app in it; {_suggestion(module)}")


def _as_celery_finds_it(name: str) -> Celery:
    """Return the app of a module that holds several, or holds it under another name than ``app``, by Celery's rules."""
    from celery.app.utils import find_app

    return find_app(name)


def _celery_module(package: ModuleType) -> ModuleType | None:
    """Return ``package.celery``, where the app of a Django project stands by convention."""
    name = f"{package.__name__}.celery"
    if not hasattr(package, "__path__"):
        return None
    try:
        return _import(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def _is_celerys(value: object) -> bool:
    """Whether it is a ``celery.Celery``; told by its class's name, so that Celery is imported only where it is used."""
    return any(kind.__module__ == "celery.app.base" for kind in type(value).__mro__)


def _suggestion(module: ModuleType) -> str:
    apps = _apps(module)
    if apps:
        return f"its apps: {', '.join(apps)}"
    beside = sorted(file.parent.name for file in Path.cwd().glob("*/celery.py"))
    if beside and module.__name__ not in beside:  # a project of Django's: this is one of its applications
        return f"did you mean -A {' or -A '.join(beside)}, which holds celery.py?"
    return "make one with app = Celeriac(...), or name the module that does"


def _apps(module: ModuleType) -> dict[str, App]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}
