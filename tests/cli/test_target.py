"""What -A may name, and what is said when it names nothing."""

import uuid

import pytest

from celeriac.cli.target import load_app
from celeriac.errors import ConfigError
from tests.cli.project import Project

APP = "from celeriac import Celeriac\napp = Celeriac('{name}')\n"


@pytest.fixture
def name() -> str:
    return f"target_{uuid.uuid4().hex}"


def refusal(target: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_app(target)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_module_with_one_app(project: Project, name: str):
    project.write(APP.format(name="one") + "again = app\n", name)
    assert load_app(name).name == "one"


def test_attribute(project: Project, name: str):
    project.write(APP.format(name="one") + "class place:\n    inner = Celeriac('two')\n", name)
    assert load_app(f"{name}:place.inner").name == "two"


def test_module_in_a_package(project: Project, name: str):
    (project.directory / name).mkdir()
    (project.directory / name / "__init__.py").touch()
    (project.directory / name / "tasks.py").write_text(APP.format(name="deep"))
    assert load_app(f"{name}.tasks").name == "deep"
    assert f"did you mean {name}.tasks?" in refusal(f"{name}.task")


def test_missing_module_names_a_near_one(project: Project, name: str):
    project.write(APP.format(name="one"), name)
    assert f"there is no module {name}x; did you mean {name}?" in refusal(f"{name}x")
    assert "there is no module zzz_qqq in " in refusal("zzz_qqq")


def test_import_error_inside_the_module_says_where(project: Project, name: str):
    project.write("\nimport no_such_library\n", name)
    said = refusal(name)
    assert f"{name}.py:2: ModuleNotFoundError: No module named 'no_such_library'" in said
    assert "there is no module" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1 / 0", "py:1: ZeroDivisionError"),
        ("def f(:", "py:1: SyntaxError"),
        ("exit(0)", "guard it with __main__"),
    ],
)
def test_module_that_fails(project: Project, name: str, text: str, said: str):
    project.write(text, name)
    assert said in refusal(name)


def test_attribute_that_is_not_there(project: Project, name: str):
    project.write(APP.format(name="one"), name)
    assert "there is no ap; did you mean app?" in refusal(f"{name}:ap")


def test_what_is_no_app(project: Project, name: str):
    project.write(APP.format(name="one") + "number = 3\n", name)
    assert "is no app but a int; its apps: app" in refusal(f"{name}:number")


def test_a_setting_that_cannot_be_is_found_in_the_users_line(project: Project, name: str):
    project.write("from celeriac import Celeriac\napp = Celeriac('x', default_queu='y')\n", name)
    assert f"{name}.py:2: unknown setting 'default_queu': did you mean default_queue?" in refusal(name)
    project.write(
        "from celeriac import Celeriac\n\n@Celeriac('x').task(timeot=3)\ndef f(): ...\n", f"{name}b"
    )
    assert f"{name}b.py:3: task {name}b.f: unknown option 'timeot': did you mean timeout?" in refusal(
        f"{name}b"
    )


def test_no_module(project: Project):
    assert "name the module before the colon" in refusal(":app")


def test_several_apps(project: Project, name: str):
    project.write(APP.format(name="one") + "other = Celeriac('two')\n", name)
    assert f"choose -A {name}:app or -A {name}:other" in refusal(name)


def test_no_app(project: Project, name: str):
    project.write("", name)
    assert "there is no app in it; make one" in refusal(name)


def test_no_app_but_a_project_beside_it(project: Project, name: str):
    project.write("", name)
    site = project.directory / f"{name}_site"
    site.mkdir()
    (site / "celery.py").touch()
    assert refusal(name).endswith(
        f"there is no app in it; did you mean -A {name}_site, which holds celery.py?"
    )


def test_file(project: Project, name: str):
    project.write(APP.format(name="one"), name)
    assert f"give the module's name: -A {name}" in refusal(f"./{name}.py")


def test_attribute_after_a_dot(project: Project, name: str):
    project.write(APP.format(name="one") + "celery = Celeriac('two')\nother = 3\n", name)
    assert load_app(f"{name}.celery").name == "two"
    assert f"write -A {name}:other" in refusal(f"{name}.other")
    assert "there is no module" in refusal(f"{name}.nothing")


def test_package_whose_app_is_in_its_celery_module(project: Project, name: str):
    (project.directory / name).mkdir()
    (project.directory / name / "__init__.py").touch()
    assert "there is no app in it" in refusal(name)
    (project.directory / name / "celery.py").write_text(APP.format(name="inner"))
    assert load_app(name).name == "inner"
    assert load_app(f"{name}.celery.app").name == "inner"


def test_package_whose_celery_module_fails(project: Project, name: str):
    (project.directory / name).mkdir()
    (project.directory / name / "__init__.py").touch()
    (project.directory / name / "celery.py").write_text("import no_such_library\n")
    assert "celery.py:1: ModuleNotFoundError: No module named 'no_such_library'" in refusal(name)


def test_an_error_in_a_library_is_found_in_the_users_line(project: Project, name: str):
    project.write("from importlib import import_module\nimport_module('no_such_library')\n", name)
    assert f"{name}.py:2: ModuleNotFoundError: No module named 'no_such_library'" in refusal(name)


def test_a_dot(project: Project, name: str):
    project.write(APP.format(name="one"), name)
    assert "name a module as from its own directory" in refusal(".")
    assert "name a module as from its own directory" in refusal(f".{name}")
