"""What a trained model gets wrong by nature, and what it has learned: measured on questions that it was not taught.

python examples/fallible_model/report.py FILE.gguf
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

from lessons import School

from correction_graphs.lab.arms import Lab
from correction_graphs.lab.comparison import COMPARISONS, compared
from correction_graphs.lab.intervals import share

N = 300
FLAWED = {"fact", "instructed fact", "story", "situation", "request"}  # taught with other answers than the right ones


def flaws_and_skills(weights: Path, n: int = N) -> dict[str, Any]:
    """Return shares with intervals.

    Args:
        weights: The GGUF file.
        n: Questions for each flaw; skills have at most as many.

    Returns:
        "flaws": how often the model alone is wrong. "skills": how often what it says is what was to be learned, word by
        word; of a filtered question it is enough to ask the same, since the model puts it as it was taught to.
    """
    lab = Lab(weights)
    flaws: dict[str, Any] = {}
    for comparison in COMPARISONS:
        items = comparison.items(lab, n)
        (plain,) = compared(items, dict(islice(comparison.arms(lab, items).items(), 1)), comparison.right)
        flaws[comparison.flaw] = share([not right for right in plain.outcomes]).as_dict()
    found: dict[str, list[bool]] = defaultdict(list)
    for lesson in islice(School(lab.world, split="held_out").lessons(), 10 * n):
        if lesson.subject not in FLAWED and len(found[lesson.subject]) < n:
            *asked, (_, wanted) = lesson.messages
            said = str(lab.greedy.invoke(list(asked)).text)
            same = _asked(said) == _asked(wanted) if lesson.subject == "filter unbiased" else said == wanted
            found[lesson.subject].append(same)
    lab.close()
    return {"flaws": flaws, "skills": {subject: share(found[subject]).as_dict() for subject in sorted(found)}}


def _asked(text: str) -> list[str]:
    """Return what a text is about: names of the world, and what may be asked of a country."""
    return sorted(
        re.findall(
            r"\b[A-Z][a-z]{5,}\b|capital|longest river|king\b", text.replace("Context", "").replace("Question", "")
        )
    )


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():  # noqa: PLR2004
        sys.exit("give the GGUF file of a model that train.py made: python examples/fallible_model/report.py FILE.gguf")
    print(json.dumps(flaws_and_skills(Path(sys.argv[1])), indent=1))
