"""What an extraction attack found over all its prompts, as numbers that compare between models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memcontrol.attacks.records import PromptResult
from memcontrol.errors import MemControlError
from memcontrol.metrics.intervals import binomial_interval


@dataclass(frozen=True)
class Extraction:
    """Outcome of an attack.

    The share is comparable between models attacked with the same prompts, rules and number of generations.

    Attributes:
        prompts: how many were tried.
        generations: images generated in all.
        suspected_prompts: prompts with a group of near-identical generations, whatever it is of.
        extracting_prompts: prompts that gave a training image back.
        extracted: positions of the distinct training images given back, ascending.
        reachable: training images whose caption is among the prompts; all, for an unconditional model.
        share: reachable training images that were given back, over the reachable ones.
        low, high: its 95 % interval (Clopper and Pearson 1934), training images being the unit. It covers which images
            were attacked; not the seed of the training, nor that images of one caption share their generations, which
            makes it somewhat too narrow where many do.
        elsewhere: training images given back by prompts that are not the caption of any of its like, not in the share.
        smallest: smallest distance (unconditional: ratio) of any generation to a training image.
        close_share: generations close enough to a training image to be one, repeated or not, over all generations. It
            moves before a first group forms; honest images have about the quantile of the calibration.
    """

    prompts: int
    generations: int
    suspected_prompts: int
    extracting_prompts: int
    extracted: tuple[int, ...]
    reachable: int
    share: float
    low: float
    high: float
    elsewhere: int
    smallest: float
    close_share: float


def summarise(results: Sequence[PromptResult], captions: Sequence[str]) -> Extraction:
    """An attack's results in numbers.

    Args:
        results: of all prompts.
        captions: `(M,)`, of the training images that `results` give positions of.
    Raises:
        MemControlError: no result, or none of the prompts is a training caption.
    """
    prompts = {result.prompt for result in results}
    reachable = {i for i, caption in enumerate(captions) if caption in prompts or None in prompts}
    if not reachable:
        raise MemControlError(
            f"none of {len(results)} attacked prompts is the caption of a training image: attack training captions"
        )
    extracted = {position for result in results for position in result.extracted}
    low, high = binomial_interval(len(extracted & reachable), len(reachable))
    generations = sum(result.generations for result in results)
    return Extraction(
        prompts=len(results),
        generations=generations,
        suspected_prompts=sum(bool(result.groups) for result in results),
        extracting_prompts=sum(bool(result.extracted) for result in results),
        extracted=tuple(sorted(extracted)),
        reachable=len(reachable),
        share=len(extracted & reachable) / len(reachable),
        low=low,
        high=high,
        elsewhere=len(extracted - reachable),
        smallest=min(result.smallest for result in results),
        close_share=sum(result.close for result in results) / generations,
    )
