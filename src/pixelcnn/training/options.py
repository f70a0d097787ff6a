"""Options of training: how to train each factor, for how long, and where to keep the results."""

__all__ = ["Budget", "Run", "Training", "budgets_of"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pixelcnn.common.checks import check_whole
from pixelcnn.data.images import Images
from pixelcnn.training.optimizers import OPTIMIZERS

LAST_RATE = 0.03  # as a share of the rate, at the end of a cooldown


@dataclass(frozen=True)
class Training:
    """Hyperparameters for training each factor.

    Args:
        batch_size: images per optimizer step, over all processes and accumulated parts together.
        optimizer: "adam" or "muon" (see `pixelcnn.training.optimizers`).
        learning_rate: the peak learning rate. For Adam, roughly how far a step moves a weight; for Muon, the share of
            a direction that a step replaces.
        moments: Adam's decay rates for the mean gradient and its square.
        warmup: steps over which the rate rises to its peak.
        decay: the factor by which every step multiplies the learning rate.
        cooldown: the share of the budget, at its end, in which the rate falls linearly to 3% of its value.
        average: decay of the Polyak average of the weights, which starts lower in the first steps.
        clip: the largest allowed norm of the gradient of the bits per dimension; 0 for no limit.
        flip: mirror half of the images.
        random_crop: side of random crops to train on, in pixels of the original image; None for whole images.
        accumulate: number of parts each batch is split into, to save memory.
        recompute: compute activations again in the backward pass, to save memory (known as gradient checkpointing).
        bf16: compute the networks in bfloat16; weights and likelihoods stay in float32.
        compile: fuse operations with `torch.compile`.
        workers: number of processes that decode images (threads, if they are streamed); 0 to decode in between.
        seed: seed of the image order, the augmentation and the dropout.

    Example:
        >>> training = Training(batch_size=32, warmup=9)
        >>> training.rate(0, used=0.0)  # a tenth of the peak
        0.0001
        >>> training.with_optimizer("muon").learning_rate
        0.015
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
    recompute: bool = False
    bf16: bool = False
    compile: bool = False
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(batch_size=self.batch_size, accumulate=self.accumulate)
        check_whole(at_least=0, workers=self.workers, seed=self.seed, warmup=self.warmup)
        if self.seed >= 2**63:
            raise ValueError(f"seed={self.seed!r}: use a number below 2**63")
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
        """Compute the learning rate of a step, counted from 0, once a share `used` of the budget (0 to 1) is spent."""
        rising = min(1.0, (step + 1) / (self.warmup + 1))
        left = min(1.0, (1 - used) / self.cooldown) if self.cooldown else 1.0
        return self.learning_rate * rising * self.decay**step * (LAST_RATE + (1 - LAST_RATE) * max(0.0, left))

    def with_optimizer(self, optimizer: str) -> "Training":
        """Switch to another optimizer at its usual learning rate; keep the rate if it is already in use."""
        if optimizer == self.optimizer or optimizer not in OPTIMIZERS:
            return replace(self, optimizer=optimizer)
        return replace(self, optimizer=optimizer, learning_rate=OPTIMIZERS[optimizer].usual_rate)

    def continued(self) -> "Training":
        """Adapt the options to trained weights: a fifth of the rate, reached slowly, so that nothing is unlearned."""
        return replace(self, learning_rate=self.learning_rate / 5, warmup=max(self.warmup, 200))


@dataclass(frozen=True)
class Budget:
    """The number of steps, or minutes of training, after which a factor is done, counting those before a resume."""

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
        """The whole budget, in steps or seconds."""
        return 60 * self.minutes if self.minutes is not None else self.steps or 0

    def used(self, step: int, seconds: float) -> float:
        """Compute how much of the total is used up."""
        return step if self.steps is not None else seconds


def budgets_of(steps: int | Sequence[int] | None, minutes: float | None, number: int) -> list[Budget]:
    """Make the budget of every factor."""
    if not isinstance(steps, Sequence):
        return [Budget(steps, minutes)] * number
    if len(steps) != number:
        raise ValueError(f"steps={steps!r}: this model has {number} factors; use one number, or one for each")
    return [Budget(each, minutes) for each in steps]


@dataclass(frozen=True, eq=False)
class Run:
    """Options of a training run that do not affect how the model learns: where to start, what to save and show.

    Args:
        factor: the factor to train, where 0 is the factor of the image itself; None for all, the coarsest first.
        initialize: start with the data-dependent initialization of fresh weights; False to continue from the weights
            of a trained model.
        resume: continue the run in the folder; a factor that has no state there starts from scratch. "auto" begins
            the run if the folder holds none, and continues it if it does, so that the same call can be repeated until
            the run is done.
        overwrite: replace the run in the folder. Only files that a run writes are removed.
        held_out: images whose views the sample sheets start from; by default the training images.
        save_minutes: minutes between saved states; 0 saves after every step.
        sheet_minutes: minutes between sample sheets; 0 for none.
        notes: further entries for `run.json`, such as where the images come from.
        progress: show a progress bar.
        device: where to train, such as "cpu" or "cuda"; "auto" is the accelerator if there is one, else the CPU. With
            several processes, each has a device of its own.

    Example:
        >>> run = Run(factor=1, resume=True, sheet_minutes=0)
        >>> run.initialize, run.save_minutes
        (True, 5.0)
    """

    factor: int | None = None
    initialize: bool = True
    resume: bool | Literal["auto"] = False
    overwrite: bool = False
    held_out: Images | None = None
    save_minutes: float = 5.0
    sheet_minutes: float = 10.0
    notes: Mapping[str, Any] | None = None
    progress: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        save, sheet = self.save_minutes, self.sheet_minutes
        if not (save >= 0 and sheet >= 0):
            raise ValueError(f"save_minutes={save!r}, sheet_minutes={sheet!r}: use numbers of at least 0")
        if self.resume not in (False, True, "auto"):
            raise ValueError(f"resume={self.resume!r}: use True, False or 'auto'")
        if self.resume == "auto" and self.overwrite:
            raise ValueError("resume='auto', overwrite=True: use one of the two; each restart would replace the run")
