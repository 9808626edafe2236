"""Random numbers that do not depend on the order in which they are asked for.

Every draw has a name: what it is for, the reply before it, and its number. So searches that share batches, search nodes
in another order, or are resumed draw the same as one that runs alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def generator_for(seed: int, purpose: str, tokens: Sequence[int], index: int) -> np.random.Generator:
    """Return the generator for one sample.

    Args:
        seed: The settings' seed.
        purpose: "propose" for candidates, "simulate" for simulations.
        tokens: The reply before the sample, without the prompt.
        index: Which of several samples for this purpose at this place, from 0.
    """
    name = hashlib.blake2b(np.asarray(tokens, np.int64).tobytes(), key=purpose.encode(), digest_size=16).digest()
    return np.random.default_rng([seed, index, int.from_bytes(name, "little")])
