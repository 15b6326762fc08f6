"""Who may come in, and what a foreign page can do."""

import asyncio
import base64
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from starlette.requests import HTTPConnection

from celeriac.errors import ConfigError
from celeriac.web.access import (
    Access,
    User,
    access_of,
    by_tokens,
    by_users,
    hash_password,
    hash_token,
    is_password,
    new_token,
    refusal,
)
from celeriac.web.doing import ACTIONS
from tests.web.site import Site

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
OWN = {**FORM, "Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
    ids=str,
)
def test_another_site_changes_nothing(site: Site, headers: Mapping[str, str]):
    for path in ACTIONS:
        status, _, _ = site.ask("POST", path.lstrip("/"), "action=purge&queue=celery", {**FORM, **headers})
        assert status == 403


def test_a_page_of_its_own_does(site: Site):
    origin = {"Origin": f"http://127.0.0.1:{site.port}"}
    status, _, _ = site.ask("POST", "do/tasks", "action=none", {**FORM, **origin})
    assert status == 303


def test_a_foreign_name_reaches_nothing(site: Site):
    status, _, text = site.ask("GET", "tasks", headers={"Host": "evil.example"})
    assert status == 403
    assert "evil.example" in text
    status, _, _ = site.ask("GET", "tasks", headers={"Host": "localhost:1234"})
    assert status == 200


def test_every_answer_forbids_foreign_content(site: Site):
    for path in ("", "tasks", "static/page.js", "nothing"):
        _, headers, _ = site.ask("GET", path)
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_users(fleet: str, tmp_path: Path):
    users = [f"--user=ann:write:{hash_password('a b:c')}", f"--user=bob:read:{hash_password('x')}"]
    with Site(fleet, tmp_path, users) as site:

        def basic(name: str, password: str) -> dict[str, str]:
            coded = base64.b64encode(f"{name}:{password}".encode()).decode()
            return {"Authorization": f"Basic {coded}"}

        def status(method: str, headers: Mapping[str, str]) -> int:
            path, body = ("do/tasks", "action=none") if method == "POST" else ("about", None)
            return site.ask(method, path, body, {**OWN, **headers})[0]

        assert [status("GET", headers) for headers in ({}, basic("ann", "x"), basic("eve", "x"))] == [
            401,
            401,
            401,
        ]
        assert [status("GET", basic("ann", "a b:c")), status("GET", basic("bob", "x"))] == [200, 200]
        assert [status("POST", basic("ann", "a b:c")), status("POST", basic("bob", "x"))] == [303, 403]
        page = site.ask("GET", "about", headers=basic("bob", "x"))[2]
        assert "bob, who may look" in page
        assert '<td data-label="Who">ann</td>' in page


def test_tokens(fleet: str, tmp_path: Path):
    write, read = new_token(), new_token()
    options = [f"--token=bot:write:{hash_token(write)}", f"--token=eye:read:{hash_token(read)}"]
    with Site(fleet, tmp_path, [*options, f"--user=ann:write:{hash_password('x')}"]) as site:

        def status(method: str, token: str) -> int:
            path, body = ("do/tasks", "action=none") if method == "POST" else ("about", None)
            return site.ask(method, path, body, {**FORM, "Authorization": f"Bearer {token}"})[0]

        assert [status("GET", token) for token in (write, read, "", "wrong", f"{write}x")] == [
            200,
            200,
            *3 * [401],
        ]
        assert [status("POST", token) for token in (write, read, "wrong")] == [303, 403, 401]
        page = site.ask("GET", "about", headers={"Authorization": f"Bearer {read}"})[2]
        assert '<td data-label="Who">bot</td>' in page
        coded = base64.b64encode(b"ann:x").decode()
        assert site.ask("GET", "about", headers={"Authorization": f"Basic {coded}"})[0] == 200


def test_a_token_without_a_hash():
    with pytest.raises(ConfigError, match="celeriac web --new-token"):
        by_tokens([User("bot", "plain", Access.READ)])


def test_read_only(fleet: str, tmp_path: Path):
    with Site(fleet, tmp_path, ["--read-only"]) as site:
        for path in ACTIONS:
            assert site.ask("POST", path.lstrip("/"), "action=none", OWN)[0] == 403
        assert 'method="post"' not in site.page("errors")


def test_a_password():
    hashed = hash_password("geheim")
    assert (is_password("geheim", hashed), is_password("Geheim", hashed)) == (True, False)
    assert hash_password("geheim") != hashed
    with pytest.raises(ConfigError, match="celeriac web --hash-password"):
        is_password("x", "md5:abc")


async def test_a_program_that_guesses_passwords_slows_nobody_who_is_known():
    authorize = by_users([User("ann", hash_password("x"), Access.WRITE)])

    async def access(name: str, password: str) -> Access:
        coded = base64.b64encode(f"{name}:{password}".encode())
        return await access_of(
            authorize, HTTPConnection({"type": "http", "headers": [(b"authorization", b"Basic " + coded)]})
        )

    assert await access("ann", "x") is Access.WRITE
    guesses = [asyncio.create_task(access(name, "wrong")) for name in 10 * ["ann", "eve"]]
    await asyncio.sleep(0)  # all of them have begun
    assert await access("ann", "x") is Access.WRITE
    assert not [guess for guess in guesses if guess.done()]
    assert len([thread for thread in threading.enumerate() if "celeriac-password" in thread.name]) in (1, 2)
    assert await asyncio.gather(*guesses) == 20 * [Access.NONE]


def test_a_dashboard_behind_a_program_that_looks_at_the_host():
    assert refusal("GET", {"host": "ops.example"}, None) is None
    assert refusal("GET", {"host": "ops.example"}, ("ops.example",)) is None
    assert refusal("GET", {"host": "[::1]:5555"}, ()) is None
    # An address is no name that a foreign page could make lead here.
    assert refusal("GET", {"host": "192.0.2.7:5555"}, ()) is None
    assert refusal("GET", {"host": "192.0.2.7.evil.example"}, ()) is not None
    assert refusal("GET", {}, ()) is not None
