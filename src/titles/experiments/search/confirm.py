"""Whether the best trials of a search are better than the baseline, or were lucky.

The best of many trials owes part of its score to luck, since the search chose it for that score. So the
best few run again, with seeds that the search has not used, beside the baseline with the same seeds.
Their differences, seed by seed, were not chosen for their size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from titles.experiments.spread import summarise

# Of claiming that any candidate is better, if none is, however often one looks.
LEVEL = 0.025
_FIRST = 0.8  # the part of it that the first look has; each later one has half of what is left
LEAST_SEEDS = 3


@dataclass(frozen=True)
class Verdict:
    """A candidate against the baseline, over paired seeds.

    looked: the difference in the search. mean, low, high: of the differences of the fresh seeds, with an
    interval that holds for all candidates and looks together; None if it cannot be had, and `note` says
    why. look: see `verdicts`.
    """

    trial: int
    looked: float
    pairs: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""
    look: int = 1

    @property
    def better(self) -> bool:
        return self.low is not None and self.low > 0

    @property
    def told(self) -> str:
        if self.mean is None:
            return f"not shown to be better: {self.note}"
        interval = f"{self.mean:+.4f} ({self.low:+.4f} .. {self.high:+.4f})"
        look = f", look {self.look}" if self.look > 1 else ""
        lead = "better" if self.better else "not shown to be better"
        less = f", {self.looked - self.mean:.4f} less than it looked" if self.looked > self.mean else ""
        seeds = f"{self.pairs} seeds{look}"
        return f"{lead}: {interval} over {seeds}; in the search it was {self.looked:+.4f}{less}"


def candidates(scores: Mapping[int, float], baseline: int, number: int) -> list[int]:
    """The best trials that scored above the baseline, at most `number`, best first.

    Args:
        scores: by trial, the baseline's too.
    """
    ranked = sorted(scores, key=lambda trial: (-scores[trial], trial))
    return [trial for trial in ranked if scores[trial] > scores[baseline]][:number]


def fresh_seeds(search: str, number: int, used: int) -> list[int]:
    """Seeds that follow from the search alone, without the one that it used."""
    seeds: list[int] = []
    count = 0
    while len(seeds) < number:
        digest = hashlib.sha256(f"{search} {count}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") % 1_000_000
        if seed != used and seed not in seeds:
            seeds.append(seed)
        count += 1
    return seeds


def verdicts(
    baseline: Mapping[int, float],
    scores: Mapping[int, Mapping[int, float]],
    looked: Mapping[int, float],
    seeds: Sequence[int],
    look: int = 1,
) -> list[Verdict]:
    """Compare candidates with the baseline.

    Intervals are those of Student's t for the mean of paired differences. LEVEL is spent over the looks,
    and the part of a look is divided by the number of candidates (Bonferroni). So they hold together:
    with probability 1 - LEVEL at least, no candidate that is not better is ever called better.

    Args:
        baseline, scores: by seed, and by candidate and seed. A run that failed has no score.
        looked: by candidate, its difference from the baseline in the search.
        seeds: all that were run.
        look: its number, from 1, among comparisons of this search with other candidates or seeds.
    """
    part = _FIRST if look == 1 else (1 - _FIRST) / 2 ** (look - 1)
    paired = [seed for seed in seeds if seed in baseline]
    found = []
    for trial, by_seed in scores.items():
        differences = [by_seed[seed] - baseline[seed] for seed in paired if seed in by_seed]
        pairs = len(differences)
        if failed := sum(seed not in by_seed for seed in seeds):
            # The seeds on which it fails are no chance sample: the others would flatter it.
            note = f"it failed with {failed} of {len(seeds)} seeds"
        elif pairs < LEAST_SEEDS:
            note = f"{pairs} pairs of seeds are too few, {LEAST_SEEDS} are needed"
        elif len({round(difference, 12) for difference in differences}) == 1 and differences[0]:
            note = f"all seeds gave the same difference {differences[0]:+.4f}, which has no interval"
        else:
            _, mean, _, low, high = summarise(differences, LEVEL * part / len(scores))
            found.append(Verdict(trial, looked[trial], pairs, mean, low, high, look=look))
            continue
        found.append(Verdict(trial, looked[trial], pairs, note=note, look=look))
    return found
