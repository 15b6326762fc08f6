"""Secrets are hidden by their names."""

import pytest

from celeriac.monitor.masking import HIDDEN, Mask


@pytest.mark.parametrize(
    "text",
    [
        "{'password': 'hunter2'}",
        '{"password": "hunter2"}',
        "{'db_password': 'hunter2', 'user': 'ann'}",
        "connect(password='hunter2')",
        "{'API_KEY': b'hunter2'}",
        "ValueError(\"token='hunter2' was refused\")",
        "Authorization: hunter2",
        "{'password': 'hunter2",
        "https://x/?token=hunter2&page=2",
        r"{'password': 'it\'s hunter2'}",
    ],
)
def test_a_named_secret(text: str):
    shown = Mask()(text)
    assert "hunter2" not in shown
    assert HIDDEN in shown


def test_what_stands_beside_a_secret_is_kept():
    assert Mask()("{'password': 'x', 'user': 'ann'}") == f"{{'password': '{HIDDEN}', 'user': 'ann'}}"
    assert Mask()("(1, 'tokens are fine')") == "(1, 'tokens are fine')"


def test_names_of_ones_own():
    mask = Mask(["iban"])
    assert "DE00" not in mask("{'iban': 'DE00'}")
    assert mask("{'password': 'x'}") == "{'password': 'x'}"
    assert (mask.hides("IBAN"), mask.hides(3)) == (True, False)
