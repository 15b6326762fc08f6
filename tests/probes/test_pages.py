"""The pages of a worker over HTTP, from a thread."""

import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from celeriac.errors import ConfigError
from celeriac.probes.address import Address
from celeriac.probes.facts import FactsFile
from celeriac.probes.pages import PageServer
from celeriac.probes.serving import LONGEST, MOST, TURN, Page
from celeriac_probe import fetch, main


def failing() -> Page:
    raise ValueError("no page")


def test_other_threads_hand_over_sooner_while_a_page_is_made_and_not_afterwards(tmp_path: Path):
    """This is the first test here: no other server runs in this process yet."""
    paths = [str(tmp_path / name) for name in ("outer", "inner")]
    seen, usual = [], sys.getswitchinterval()

    def inner() -> Page:
        seen.append(sys.getswitchinterval())
        return Page(200, b"")

    servers = [
        PageServer(Address(path=path).listen(), {"/": page})
        for path, page in zip(paths, (lambda: Page(fetch(paths[1], "/", 30)[0], b""), inner), strict=True)
    ]
    for server in servers:
        server.start()
    assert fetch(paths[0], "/", 30)[0] == 200
    for server in servers:
        server.close()  # when it returns, the thread has ended
    assert seen == [pytest.approx(TURN)]
    assert sys.getswitchinterval() == usual


@pytest.fixture(scope="module", params=["thread", "process"])
def served(request: pytest.FixtureRequest) -> Iterator[PageServer]:
    """A server in a thread, and one to whose thread a process passes on what it does not answer itself."""
    pages = {
        "/good": lambda: Page(200, b"well\n"),
        "/bad": lambda: Page(503, b"ill\n"),
        "/large": lambda: Page(200, b"x" * 5_000_000),
        "/failing": failing,
    }
    facts = FactsFile.make()
    beside = facts if request.param == "process" else None
    server = PageServer(Address(host="127.0.0.1").listen(), pages, beside)
    server.start()
    assert (server.beside is not None) == (request.param == "process")
    yield server
    server.close()
    facts.close()


def raw(server: PageServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(30)
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/good", 200, b"well\n"),
        ("/good?verbose=1", 200, b"well\n"),
        ("/bad", 503, b"ill\n"),
        ("/failing", 500, b"the log has the error\n"),
    ],
)
def test_a_page_with_its_status(served: PageServer, target: str, status: int, body: bytes):
    assert fetch(served.port, target, 30) == (status, body)


def test_a_path_without_a_page_is_told_which_there_are(served: PageServer):
    status, body = fetch(served.port, "/nowhere", 30)
    assert status == 404
    assert {b"/bad,", b"/failing,", b"/good,"} <= set(body.split())


def test_a_large_page_arrives_whole(served: PageServer):
    assert len(fetch(served.port, "/large", 30)[1]) == 5_000_000


def test_head_has_no_body_and_other_methods_are_refused(served: PageServer):
    head = raw(served, b"HEAD /good HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 5\r\n" in head
    assert head.endswith(b"\r\n\r\n")
    assert raw(served, b"POST /good HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "request_",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\x00 \xfe\r\n\r\n", b"GET  \r\n\r\n", b"x" * (LONGEST + 1)],
)
def test_what_is_no_request_hurts_nobody(served: PageServer, request_: bytes):
    with suppress(ConnectionResetError):  # it is closed before all was read
        raw(served, request_)
    assert fetch(served.port, "/good", 30)[0] == 200


def test_clients_that_say_nothing_hold_nobody_up(served: PageServer):
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(2 * MOST)]
    assert fetch(served.port, "/good", 30)[0] == 200
    assert idle[0].recv(1) == b""  # the server has left it
    for connection in idle:
        connection.close()


def test_a_socket_file_that_was_left_is_taken_over_and_removed_at_the_end(tmp_path: Path):
    path = str(tmp_path / "probe")
    Address(path=path).listen().close()
    server = PageServer(Address(path=path).listen(), {"/livez": lambda: Page(200, b"yes\n")})
    server.start()
    assert main(["live", "--socket", path]) == 0
    assert main(["ready", "--socket", path]) == 1
    with pytest.raises(ConfigError, match="in use"):
        Address(path=path).listen()
    server.close()
    assert not Path(path).exists()
    assert main(["live", "--socket", path]) == 1


def test_a_port_that_is_taken_is_named(served: PageServer):
    with pytest.raises(ConfigError, match=rf"127.0.0.1:{served.port} cannot be listened on"):
        Address(served.port, "127.0.0.1").listen()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["die"],
        ["live"],
        ["live", "--port", "x"],
        ["ready", "--file", "f"],
        ["live", "--port", "1", "--file", "f"],
    ],
)
def test_wrong_usage_of_the_program(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    assert "usage: celeriac-probe" in capsys.readouterr().err
