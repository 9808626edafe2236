"""Several searches at the same time, as `ChatRain.batch` runs them."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from correction_graphs.generators import follow
from correction_graphs.rain.gathering import Gathering
from correction_graphs.rain.steps import Forward


def drive_together(steps, backend):
    """Return the result of each, or what it raised; each runs in a thread of its own, and begins when all are there."""
    gathering = Gathering(backend)
    all_there = threading.Barrier(max(1, len(steps)), timeout=30)

    def perform(request):
        if isinstance(request, Forward):
            return gathering.forward(request.branches)
        with gathering.apart():
            return request.invoke()

    def run(each):
        with gathering.attended():
            all_there.wait()
            try:
                return follow(each, perform)
            except Exception as error:  # noqa: BLE001
                return error

    with ThreadPoolExecutor(max_workers=max(1, len(steps))) as pool:
        return list(pool.map(run, steps))


async def adrive_together(steps, backend):
    """Return the result of each, or what it raised."""
    gathering = Gathering(backend)
    return await asyncio.gather(*map(gathering.adrive, steps), return_exceptions=True)
