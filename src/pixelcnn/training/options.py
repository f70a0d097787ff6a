"""How a factor is trained, and for how long."""

__all__ = ["Budget", "Run", "Training", "budgets_of"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pixelcnn.common.checks import check_whole
from pixelcnn.data.images import Images
from pixelcnn.training.optimizers import OPTIMIZERS

LAST_RATE = 0.03  # of the rate, at the end of a cooldown


@dataclass(frozen=True)
class Training:
    """How each factor is trained.

    Args:
        batch_size: images in an optimiser step, over all processes and accumulated parts together.
        optimizer: "adam" or "muon" (see `pixelcnn.optimizers`).
        learning_rate: the highest. Of Adam, about how far a step moves a weight; of Muon, the share of a direction
            that a step replaces.
        moments: Adam's decay of the mean gradient and of its square.
        warmup: steps in which the rate rises to its highest.
        decay: what each step multiplies the learning rate by.
        cooldown: the last share of the budget, in which the rate falls in a straight line to 3 % of what it would be.
        average: decay of the Polyak average of the weights, approached from below over the first steps.
        clip: largest norm of the gradient of the bits per dimension; 0 for no limit.
        flip: mirror half of the images.
        random_crop: side of random crops to train on, in pixels of the image itself; None for whole images.
        accumulate: parts that a batch is computed in, to need less memory.
        bf16: compute the networks in bfloat16; weights and likelihoods stay float32.
        compile: fuse operations with `torch.compile`.
        workers: processes that decode images; 0 for the training process itself.
        seed: of the order, the augmentation and the dropout.
    """

    batch_size: int = 16
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    moments: tuple[float, float] = (0.9, 0.999)
    warmup: int = 0
    decay: float = 0.99999
    cooldown: float = 0.0
    average: float = 0.9995
    clip: float = 1.0
    flip: bool = True
    random_crop: int | None = None
    accumulate: int = 1
    bf16: bool = False
    compile: bool = False
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(batch_size=self.batch_size, accumulate=self.accumulate)
        check_whole(at_least=0, workers=self.workers, seed=self.seed, warmup=self.warmup)
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer={self.optimizer!r}: use {' or '.join(map(repr, OPTIMIZERS))}")
        if len(self.moments) != 2 or not all(0 <= moment < 1 for moment in self.moments):
            raise ValueError(f"moments={self.moments!r}: use two numbers of at least 0 and below 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate!r}: use a divisor of batch_size={self.batch_size}")
        most = OPTIMIZERS[self.optimizer].highest_rate
        if not 0 < self.learning_rate <= most:
            raise ValueError(
                f"learning_rate={self.learning_rate!r}: use a number above 0, at most {most} with {self.optimizer!r}"
            )
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"cooldown={self.cooldown!r}: use a share of the budget, from 0 to 1")
        for name in ("decay", "average"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: use a number above 0 and at most 1")
        if not self.clip >= 0:
            raise ValueError(f"clip={self.clip!r}: use a number of at least 0")

    def rate(self, step: int, used: float) -> float:
        """The learning rate of a step, counted from 0, when a share of the budget from 0 to 1 is used up."""
        rising = min(1.0, (step + 1) / (self.warmup + 1))
        left = min(1.0, (1 - used) / self.cooldown) if self.cooldown else 1.0
        return self.learning_rate * rising * self.decay**step * (LAST_RATE + (1 - LAST_RATE) * max(0.0, left))

    def with_optimizer(self, optimizer: str) -> "Training":
        """The same with another optimizer, at its usual rate; nothing changes where it is that already."""
        if optimizer == self.optimizer or optimizer not in OPTIMIZERS:
            return replace(self, optimizer=optimizer)
        return replace(self, optimizer=optimizer, learning_rate=OPTIMIZERS[optimizer].usual_rate)

    def continued(self) -> "Training":
        """How to go on from trained weights: at a fifth of the rate, reached slowly, so that nothing is unlearned."""
        return replace(self, learning_rate=self.learning_rate / 5, warmup=max(self.warmup, 200))


@dataclass(frozen=True)
class Budget:
    """When a factor is done: after so many steps, or so many minutes of steps, resumed or not."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(f"steps={self.steps!r}, minutes={self.minutes!r}: give one of the two")
        if self.steps is not None:
            check_whole(steps=self.steps)
        elif self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ValueError(f"minutes={self.minutes!r}: use a number above 0")

    @property
    def total(self) -> float:
        """Steps, or seconds."""
        return 60 * self.minutes if self.minutes is not None else self.steps or 0

    def used(self, step: int, seconds: float) -> float:
        """How much of the total is used up."""
        return step if self.steps is not None else seconds


def budgets_of(steps: int | Sequence[int] | None, minutes: float | None, number: int) -> list[Budget]:
    """The budget of every factor."""
    if not isinstance(steps, Sequence):
        return [Budget(steps, minutes)] * number
    if len(steps) != number:
        raise ValueError(f"steps={steps!r}: this model has {number} factors; use one number, or one for each")
    return [Budget(each, minutes) for each in steps]


@dataclass(frozen=True, eq=False)
class Run:
    """What a training does besides learning: where it begins, what it keeps and shows.

    Args:
        factor: the factor to train, 0 being that of the image itself; None for all, the coarsest first.
        initialize: begin with the data-dependent initialization of fresh weights; False goes on from the weights of a
            model that is trained already.
        resume: go on with the run in the folder; a factor that has no state there begins.
        overwrite: replace the run in the folder: what a run writes is removed, and nothing else.
        held_out: images whose views the sample sheets begin with; by default those to train on.
        save_minutes: time between two saved states; 0 saves after every step.
        sheet_minutes: time between two sample sheets; 0 for none.
        notes: what else to write into `run.json`, such as where the images come from.
        progress: show a progress bar.
    """

    factor: int | None = None
    initialize: bool = True
    resume: bool = False
    overwrite: bool = False
    held_out: Images | None = None
    save_minutes: float = 5.0
    sheet_minutes: float = 10.0
    notes: Mapping[str, Any] | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        save, sheet = self.save_minutes, self.sheet_minutes
        if not (save >= 0 and sheet >= 0):
            raise ValueError(f"save_minutes={save!r}, sheet_minutes={sheet!r}: use numbers of at least 0")
