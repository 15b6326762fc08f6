"""What the pages say works, works; what they say is printed, is printed."""

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks_of, pages, same
from tests.docs.reader import RABBIT, REDIS, Reader
from tests.servers import RedisServer

RUN = [
    page
    for page in pages()
    if any("run" in block.marks for block in blocks_of(page)) and RABBIT not in page.read_text()
]
"""Those with RabbitMQ are followed where that runs (``tests/amqp``)."""

# Whichever test is the first waits for all pages that are followed, each in a time of its own.


@pytest.fixture(scope="module")
def followed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Path], int]]:
    """Every page of this session, followed beside the others, since most is waiting; tells its number of blocks.

    A page that is asked for again, since its test runs again, is followed again, in another directory.

    The pages use Celery's own names of queues, so they have a Redis to themselves, and each a database.
    """
    chosen = {
        item.callspec.params.get("page")
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_a_page_does_what_it_says"
    }

    # Made here: of two threads that ask for the first directory of a session, one would delete the other's.
    places = {page: tmp_path_factory.mktemp(page.stem) for page in chosen & set(RUN)}

    def follow(page: Path) -> int:
        with Reader(places[page], REDIS, redis.url(RUN.index(page))) as reader:
            return reader.follow(page)

    def result(page: Path) -> int:
        if page in begun:
            return begun.pop(page).result()
        places[page] = tmp_path_factory.mktemp(page.stem)
        redis.client(RUN.index(page)).flushdb()
        return follow(page)

    with RedisServer() as redis, ThreadPoolExecutor(max_workers=2) as readers:
        longest_first = sorted(chosen & set(RUN), key=lambda page: len(blocks_of(page)), reverse=True)
        begun: dict[Path, Future[int]] = {page: readers.submit(follow, page) for page in longest_first}
        yield result


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page: Path, followed: Callable[[Path], int]):
    assert followed(page) > 0


def test_the_readme_begins_with_a_program_and_what_it_prints():
    program, output, *_ = blocks_of(ROOT / "README.md")
    assert program.language == "python"
    assert "run" in program.marks
    assert len([line for line in program.text.splitlines() if line]) <= 12
    assert "output" in output.marks


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_is_python_and_imports_what_there_is(page: Path):
    for block in blocks_of(page):
        if block.language != "python":
            continue
        tree = compile(
            block.text, f"{page}:{block.line}", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "celeriac":
                module = importlib.import_module(str(node.module))
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert not missing, f"{page}:{block.line}: {node.module} has no {missing}"


def test_the_ellipsis_stands_for_anything_within_a_line():
    assert same("took … s\ndone\n", "took 0.3 s\ndone\n")
    assert not same("took … s", "took 0.3\n s")
    assert not same("5", "55")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_before_a_release_nothing_is_installed_by_name_alone(page: Path):
    released = re.search(r"^## \[\d", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    by_name = re.findall(r"pip install [^\n`]*(?<![/\w])celeriac\b[^\n`*]*", page.read_text())
    assert released or not by_name
