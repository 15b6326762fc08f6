"""The dead letters of one test, where the server is shared."""

from celeriac import Celeriac
from celeriac.contracts.set_aside import DeadLetter


async def letters_of(app: Celeriac) -> list[DeadLetter]:
    """Return the dead letters of the app's default queue, the oldest first."""
    letters = await app.connections().broker.dead.list(10_000)
    return [letter for letter in letters if letter.queue == app.settings.default_queue]
