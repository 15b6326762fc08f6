"""The suite that every board passes: a test for each sentence of its contract."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from celeriac.contracts.board import Board, Contents, Leases, Marks, Windows
from celeriac.testing.steps import PATIENCE

LONG = 600.0
SHORT = 0.3


class SetsContract:
    """Subclass it and give it two fixtures.

    ``board``: the board under test. ``other``: another connection to the same place, as another process would have.
    The fixtures close what they open.
    """

    pytestmark = pytest.mark.asyncio

    async def test_sets_that_nobody_added_to_are_empty(self, board: Board, name: str) -> None:
        assert _members(await board.sets.load(name, ["a", "b"])) == {"a": set(), "b": set()}

    async def test_what_is_added_is_known_to_all(self, board: Board, other: Board, name: str) -> None:
        await board.sets.add(name, {"a": ["x", "grüße"], "b": ["y"]}, LONG)
        await other.sets.add(name, {"b": ["x"]}, LONG)
        for one in (board, other):
            assert _members(await one.sets.load(name, ["a", "b"])) == {"a": {"x", "grüße"}, "b": {"x", "y"}}
            assert _members(await one.sets.load(name, ["b"])) == {"b": {"x", "y"}}

    async def test_sets_of_another_name_are_others(self, board: Board, name: str) -> None:
        before = await board.sets.revision(f"{name}2")
        await board.sets.add(name, {"a": ["x"]}, LONG)
        loaded = await board.sets.load(f"{name}2", ["a"])
        assert (loaded.revision, loaded.sets) == (before, {"a": {}})

    async def test_a_member_tells_until_when_it_is_kept(self, board: Board, other: Board, name: str) -> None:
        await board.sets.add(name, {"a": ["x"]}, LONG)
        await other.sets.add(name, {"a": ["x", "y"]}, LONG / 2)
        found = (await board.sets.load(name, ["a"])).sets["a"]
        now = time.time()
        assert found["x"] == pytest.approx(now + LONG, abs=PATIENCE)
        assert found["y"] == pytest.approx(now + LONG / 2, abs=PATIENCE)

    async def test_what_is_removed_is_gone(self, board: Board, other: Board, name: str) -> None:
        await board.sets.add(name, {"a": ["x", "y"], "b": ["x"]}, LONG)
        await other.sets.remove(name, {"a": ["x", "never"]})
        assert _members(await board.sets.load(name, ["a", "b"])) == {"a": {"y"}, "b": {"x"}}
        await board.sets.add(name, {"a": ["x"]}, LONG)
        assert _members(await other.sets.load(name, ["a"])) == {"a": {"x", "y"}}

    async def test_the_revision_changes_with_every_change(
        self, board: Board, other: Board, name: str
    ) -> None:
        seen = [await board.sets.revision(name)]
        for change in range(4):
            one = (board, other)[change % 2]
            await (
                one.sets.add(name, {"a": ["x"]}, LONG) if change < 3 else one.sets.remove(name, {"a": ["x"]})
            )
            seen.append(await other.sets.revision(name))
            assert await board.sets.revision(name) == seen[-1]
            assert (await board.sets.load(name, ["a"])).revision == seen[-1]
        assert len(set(seen)) == 5

    async def test_a_member_ends_and_can_be_added_again(self, board: Board, other: Board, name: str) -> None:
        await board.sets.add(name, {"a": ["kept"]}, LONG)
        await board.sets.add(name, {"a": ["brief"]}, SHORT)
        async with asyncio.timeout(PATIENCE):
            while _members(await other.sets.load(name, ["a"])) != {"a": {"kept"}}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await other.sets.add(name, {"a": ["brief"]}, LONG)
        assert _members(await board.sets.load(name, ["a"])) == {"a": {"kept", "brief"}}

    async def test_when_all_has_ended_the_next_change_is_not_missed(self, board: Board, name: str) -> None:
        await board.sets.add(name, {"a": ["brief"]}, SHORT)
        before = await board.sets.revision(name)
        async with asyncio.timeout(PATIENCE):
            while (await board.sets.load(name, ["a"])).sets["a"]:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        await board.sets.add(name, {"a": ["next"]}, LONG)
        assert await board.sets.revision(name) not in (0, before)

    async def test_2500_names_at_once(self, board: Board, other: Board, name: str) -> None:
        names = {f"name-{number}" for number in range(2500)}
        await board.sets.add(name, {"a": names, "b": names}, LONG)
        assert _members(await other.sets.load(name, ["a", "b"])) == {"a": names, "b": names}

    @pytest.fixture
    def name(self) -> str:
        """Return a name that no other test has."""
        return f"contract-{uuid.uuid4()}"


class MarksContract:
    """Likewise, of a board that keeps marks."""

    pytestmark = pytest.mark.asyncio

    async def test_the_value_that_is_put_first_stays(self, board: Board, other: Board, name: str) -> None:
        assert await _marks(board).put(name, "a", "1", LONG) == "1"
        for one in (other, board):
            assert await _marks(one).put(name, "a", "2", LONG) == "1"
        assert await _marks(other).put(name, "b", "grüße", LONG) == "grüße"
        assert await _marks(other).put(f"{name}.2", "a", "2", LONG) == "2"

    async def test_of_many_at_once_one_stays(self, board: Board, other: Board, name: str) -> None:
        boards = (_marks(board), _marks(other))
        found = await asyncio.gather(*[boards[n % 2].put(name, "a", str(n), LONG) for n in range(100)])
        assert len(set(found)) == 1

    async def test_a_mark_is_removed_by_its_value(self, board: Board, other: Board, name: str) -> None:
        await _marks(board).put(name, "a", "1", LONG)
        assert not await _marks(other).remove(name, "a", "2")
        assert not await _marks(other).remove(name, "b", "1")
        assert await _marks(board).put(name, "a", "2", LONG) == "1"
        assert await _marks(other).remove(name, "a", "1")
        assert not await _marks(board).remove(name, "a", "1")
        assert await _marks(board).put(name, "a", "2", LONG) == "2"

    async def test_marks_end_with_the_first_of_their_key(self, board: Board, other: Board, name: str) -> None:
        key = await _put_both(board, other, name)
        await _until_free(other, key, "b")
        assert await _marks(board).put(key, "a", "3", LONG) == "3"

    async def test_what_is_shortened_ends_soon_also_when_it_comes_only_then(
        self, board: Board, other: Board, name: str
    ) -> None:
        await _marks(board).put(name, "a", "1", LONG)
        for key in (name, f"{name}.2", name):
            await _marks(other).shorten(key, SHORT)
            await _marks(other).shorten(key, LONG)
        await _marks(board).put(f"{name}.2", "a", "1", LONG)
        for key in (name, f"{name}.2"):
            await _until_free(other, key, "a")

    @pytest.fixture
    def name(self) -> str:
        """Return a name that no other test has."""
        return f"contract-{uuid.uuid4()}"


class LeasesContract:
    """Likewise, of a board that gives leases."""

    pytestmark = pytest.mark.asyncio

    async def test_one_holder_at_a_time(self, board: Board, other: Board, name: str) -> None:
        assert await _leases(board).hold(name, "a", LONG)
        assert not await _leases(other).hold(name, "b", LONG)
        assert await _leases(board).hold(name, "a", LONG)
        assert await _leases(other).hold(f"{name}.2", "b", LONG)

    async def test_of_many_at_once_one_has_it(self, board: Board, other: Board, name: str) -> None:
        boards = (_leases(board), _leases(other))
        found = await asyncio.gather(*[boards[n % 2].hold(name, str(n), LONG) for n in range(20)])
        assert sum(map(bool, found)) == 1

    async def test_its_holder_frees_it(self, board: Board, other: Board, name: str) -> None:
        await _leases(board).hold(name, "a", LONG)
        await _leases(other).release(name, "b")
        assert not await _leases(other).hold(name, "b", LONG)
        await _leases(board).release(name, "a")
        await _leases(board).release(name, "a")
        assert await _leases(other).hold(name, "b", LONG)

    async def test_it_ends_unless_it_is_renewed(self, board: Board, other: Board, name: str) -> None:
        assert await _leases(board).hold(name, "a", SHORT)
        async with asyncio.timeout(PATIENCE):
            while not await _leases(other).hold(name, "b", LONG):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        assert not await _leases(board).hold(name, "a", LONG)

    async def test_it_tells_the_time_of_a_server_that_has_a_clock(self, board: Board, name: str) -> None:
        before = time.time()
        held = await _leases(board).hold(name, "a", LONG)
        refused = await _leases(board).hold(name, "b", LONG)
        loaded = await board.sets.load(name, ["a"])
        told = [one.now for one in (held, refused, loaded)]
        # The servers of tests are on this machine.
        assert told == [None] * 3 or all(at is not None and before - 1 < at < time.time() + 1 for at in told)

    async def test_it_is_renewed(self, board: Board, other: Board, name: str) -> None:
        assert await _leases(board).hold(name, "a", SHORT)
        assert await _leases(board).hold(name, "a", LONG)
        await asyncio.sleep(2 * SHORT)
        assert not await _leases(other).hold(name, "b", LONG)

    @pytest.fixture
    def name(self) -> str:
        """Return a name that no other test has."""
        return f"contract-{uuid.uuid4()}"


class WindowsContract:
    """Likewise, of a board that counts turns."""

    pytestmark = pytest.mark.asyncio

    async def test_so_many_turns_are_at_once(self, board: Board, other: Board, name: str) -> None:
        for one in (board, other, board):
            assert await _windows(one).turn(name, 3, LONG) == 0
        for one in (board, other):
            assert await _windows(one).turn(name, 3, LONG) == pytest.approx(LONG, abs=PATIENCE)
        assert await _windows(other).turn(f"{name}.2", 3, LONG) == 0

    async def test_of_many_at_once_so_many_have_a_turn(self, board: Board, other: Board, name: str) -> None:
        boards = (_windows(board), _windows(other))
        found = await asyncio.gather(*[boards[n % 2].turn(name, 7, LONG) for n in range(30)])
        assert found.count(0) == 7

    async def test_a_turn_is_booked_ahead(self, board: Board, other: Board, name: str) -> None:
        ahead = [await _windows((board, other)[n % 2]).turn(name, 2, LONG, 3 * LONG) for n in range(6)]
        assert ahead == pytest.approx([0, 0, LONG, LONG, 2 * LONG, 2 * LONG], abs=PATIENCE)
        assert await _windows(other).turn(name, 2, LONG, 2 * LONG) == pytest.approx(3 * LONG, abs=PATIENCE)
        assert await _windows(board).turn(name, 2, LONG, 3 * LONG) == pytest.approx(3 * LONG, abs=PATIENCE)

    async def test_a_turn_is_free_again_when_the_window_has_passed_it(self, board: Board, name: str) -> None:
        begun = time.monotonic()
        for _ in range(2):
            assert await _windows(board).turn(name, 2, SHORT, LONG) == 0
        async with asyncio.timeout(PATIENCE):
            while (ahead := await _windows(board).turn(name, 2, SHORT)) > 0:
                assert ahead <= SHORT + 0.001
                await asyncio.sleep(ahead)
        assert time.monotonic() - begun >= SHORT - 0.01

    @pytest.fixture
    def name(self) -> str:
        """Return a name that no other test has."""
        return f"contract-{uuid.uuid4()}"


class BoardContract(SetsContract, MarksContract, LeasesContract, WindowsContract):
    """All of it, of a board that can all. Subclass it and give it the fixtures of ``SetsContract``."""


def _members(contents: Contents) -> dict[str, set[str]]:
    return {kind: set(names) for kind, names in contents.sets.items()}


def _marks(board: Board) -> Marks:
    assert board.marks is not None
    return board.marks


def _leases(board: Board) -> Leases:
    assert board.leases is not None
    return board.leases


def _windows(board: Board) -> Windows:
    assert board.windows is not None
    return board.windows


async def _put_both(board: Board, other: Board, name: str) -> str:
    """Put a brief mark ``a`` and a lasting one ``b`` under one key; return the key.

    On a busy machine the first may end before the second comes, which then would be the first: another key is taken.
    """
    for attempt in range(100):
        key = f"{name}.{attempt}"
        await _marks(board).put(key, "a", "1", SHORT)
        await _marks(other).put(key, "b", "1", LONG)
        if await _marks(board).put(key, "a", "2", LONG) == "1":
            return key
    raise AssertionError(f"a mark of {SHORT} s ended before the next round trip, a hundred times")


async def _until_free(board: Board, key: str, name: str) -> None:
    """Return once a mark has expired. No signal comes, so this tries again and again."""
    async with asyncio.timeout(PATIENCE):
        while await _marks(board).put(key, name, "free", LONG) != "free":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
