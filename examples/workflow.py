"""A workflow: fetch, then two analyses side by side, then one report; and its drawing."""

import asyncio
import tempfile

from celeriac import Celeriac, graphviz, group, workflow_progress

app = Celeriac("analysis", broker=f"sqlite:///{tempfile.mkdtemp()}/analysis.db")


@app.task
async def fetch(source: str) -> list[int]:
    return [len(word) for word in source.split()]


@app.task
def longest(lengths: list[int]) -> int:
    return max(lengths)


@app.task
def average(lengths: list[int]) -> float:
    return sum(lengths) / len(lengths)


@app.task
async def report(findings: list[float], title: str) -> str:
    return f"{title}: longest {findings[0]}, average {findings[1]:.2f}"


async def main() -> None:
    workflow = fetch.s("to be or not to be") | group(longest.s(), average.s()) | report.s("words")
    print(workflow)
    async with app, app.worker():
        result = await workflow.send()
        print(await result.wait(timeout=10))
        progress = await workflow_progress(result)
    print(f"{progress.succeeded} of {progress.total} tasks succeeded")
    print(graphviz(workflow))


if __name__ == "__main__":
    asyncio.run(main())
