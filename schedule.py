"""The stages of a run and the learning rate at any moment of them: arithmetic, no Keras."""

import math
from dataclasses import dataclass

from config import TrainingConfig
from errors import UserError

STAGE_RATE_DROP = 0.1  # a later stage without a rate of its own trains this much slower
HALVING_EPOCHS = 10


@dataclass(frozen=True)
class Stage:
    fraction: float  # share of the training rows, stratified by class and attack
    epochs: int
    learning_rate: float


def plan_stages(training: TrainingConfig) -> list[Stage]:
    """The stages of a run; one value of epochs or learning rate stands for all stages."""
    count = len(training.stages)
    epochs = training.epochs * count if len(training.epochs) == 1 else training.epochs
    rates = training.learning_rate
    if len(rates) == 1:
        rates = tuple(rates[0] * STAGE_RATE_DROP**i for i in range(count))
    if not len(epochs) == len(rates) == count:
        raise UserError(
            f"{count} stages, {len(epochs)} numbers of epochs and {len(rates)} learning rates: "
            "give one value, or one for each stage"
        )
    if not all(0 < f <= 1 for f in training.stages) or min(epochs) < 1 or not all(rate > 0 for rate in rates):
        raise UserError("stages are fractions in (0, 1], epochs at least 1, learning rates above 0")
    return [Stage(*values) for values in zip(training.stages, epochs, rates, strict=True)]


def learning_rate(training: TrainingConfig, stage: Stage, epoch: float) -> float:
    """Rate at `epoch` (counted from the stage's start, a fraction inside an epoch) of a stage."""
    first, last = stage.learning_rate, min(training.final_learning_rate, stage.learning_rate)
    if training.schedule == "constant":
        return first
    if training.schedule == "cosine":
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * epoch / stage.epochs))
    if training.schedule == "halving":
        return max(last, first * 0.5 ** (epoch // HALVING_EPOCHS))
    # the ResMax authors' sigmoidal decay, centred in the stage
    return last + (first - last) / (1 + math.exp(-13 * (stage.epochs / 2 - epoch) / stage.epochs))
