"""What a file cannot keep is refused alone: what shares its transaction is kept."""

import asyncio

from celeriac import Celeriac
from celeriac.errors import BackendError, EncodeError
from celeriac.wire.result import SUCCESS, ResultRecord

BAD = "lone \ud800"


async def test_of_a_batch_only_what_cannot_be_kept_is_refused(file):
    url = f"sqlite:///{file}"
    async with Celeriac("shop", url, url) as app:
        sends = [app.send_task("task", queue=BAD if n == 5 else "good") for n in range(10)]
        answers = await asyncio.gather(*sends, return_exceptions=True)
        assert [n for n, answer in enumerate(answers) if isinstance(answer, EncodeError)] == [5]
        assert await app.connections().broker.depth("good") == 9
        backend = app.connections().backend
        names = [BAD if n == 5 else str(n) for n in range(10)]
        records = [ResultRecord(task_id=name, status=SUCCESS, result=1) for name in names]
        stores = [backend.store(backend.encode(record)) for record in records]
        answers = await asyncio.gather(*stores, return_exceptions=True)
        assert [n for n, answer in enumerate(answers) if isinstance(answer, BackendError)] == [5]
        assert None not in await backend.load(["0", "9"])
