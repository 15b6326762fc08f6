"""A task that is an object and carries what it needs: no globals, and two shops side by side."""

import asyncio
from dataclasses import dataclass

from celeriac import Celeriac, Context


class Mailbox:
    """Stands for a connection to a mail server."""

    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.sent: list[str] = []

    async def send(self, text: str) -> None:
        self.sent.append(f"{self.sender}: {text}")


@dataclass
class Order:
    number: int
    articles: list[str]


class Confirm:
    """Confirms orders by mail."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox

    async def run(self, ctx: Context, order: Order) -> int:
        await self.mailbox.send(f"order {order.number}: {', '.join(order.articles)} (attempt {ctx.attempt})")
        return len(order.articles)


async def main() -> None:
    app = Celeriac("shops", broker="memory://")
    north, south = Mailbox("north"), Mailbox("south")
    confirm_north = app.register("north.confirm", Confirm(north))
    app.register("south.confirm", Confirm(south))

    async with app.worker():
        count = await (await confirm_north.send(Order(1, ["tea", "cups"])))
        print("confirmed", count, "articles")
        await (await app.send_task("south.confirm", [{"number": 2, "articles": ["salt"]}]))
    print(*north.sent, *south.sent, sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
