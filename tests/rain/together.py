"""Several searches at the same time, as `ChatRain.batch` runs them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from correction_graphs.rain.gathering import Gathering


def drive_together(steps, backend):
    """Return the result of each, or what it raised; each runs in a thread of its own."""
    gathering = Gathering(backend)

    def run(each):
        try:
            return gathering.drive(each)
        except Exception as error:  # noqa: BLE001
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(steps))) as pool:
        return list(pool.map(run, steps))


async def adrive_together(steps, backend):
    """Return the result of each, or what it raised."""
    gathering = Gathering(backend)
    return await asyncio.gather(*map(gathering.adrive, steps), return_exceptions=True)
