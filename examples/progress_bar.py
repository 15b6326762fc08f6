"""A task reports how far it is; the program that sent it draws a bar."""

import asyncio

from rich.progress import Progress

from celeriac import Celeriac, Context

app = Celeriac("export")


@app.task
async def export(ctx: Context, rows: int) -> str:
    for done in range(rows):
        ctx.progress(done, rows, "writing")
        await asyncio.sleep(0.02)
    return f"{rows} rows"


async def main() -> None:
    async with app.worker():
        result = await export.send(20)
        with Progress(transient=True) as bar:
            row = bar.add_task("export", total=20)
            async for record in result.watch():
                if record.status == "PROGRESS":
                    bar.update(row, completed=record.result["current"])
        print("exported", await result)


if __name__ == "__main__":
    asyncio.run(main())
