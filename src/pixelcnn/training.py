"""Training: each factor alone, in one loop that reads from top to bottom: build, restore, loop, save.

A run is a folder. Beside the trained model (`config.json`, `model.safetensors`: the averaged weights) it holds

    run.json                      how the model is trained, and on what
    factor-K/state.safetensors    all that the next step needs: for `resume`
    factor-K/history.jsonl        a line every few seconds: step, seconds, bits per dimension, images a second
    factor-K/sheet-STEP.png       samples; of a factor that is given a view, samples given those of held-out images
    factor-K/events.*             the history for TensorBoard
    factor-K/.lock                held by the process that trains the factor

Resume is exact. What a step sees depends on the seed and the step alone (`Shuffled`); the state holds the rest:
weights, their average, the optimizer's moments, and the random state that draws dropout. (Accelerate can save states
too, but reads parts of them as unrestricted pickles.)
"""

__all__ = ["Training", "train"]

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import BatchSampler, DataLoader

from pixelcnn.checkpoint import STATE, TrainingState, load, restore_state
from pixelcnn.config import shorten
from pixelcnn.data import Images, Shuffled
from pixelcnn.figures import save_picture, sheet
from pixelcnn.history import Due, History
from pixelcnn.likelihoods import check_whole
from pixelcnn.memory import check_training_memory
from pixelcnn.models import Factor, ImageModel
from pixelcnn.optimizers import OPTIMIZERS, make_optimizers, set_rate
from pixelcnn.progress import progress_bar
from pixelcnn.runs import claim_folder, publish, save_factor
from pixelcnn.sampling import sample_factor

LOG_MINUTES = 2 / 60
IMAGE_LEVELS = 256
INITIAL_IMAGES = 32  # that the data-dependent initialisation looks at
SHEET_IMAGES = 8
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
        most = OPTIMIZERS[self.optimizer]
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


def _budgets(steps: int | Sequence[int] | None, minutes: float | None, number: int) -> list[Budget]:
    """The budget of every factor."""
    if not isinstance(steps, Sequence):
        return [Budget(steps, minutes)] * number
    if len(steps) != number:
        raise ValueError(f"steps={steps!r}: this model has {number} factors; use one number, or one for each")
    return [Budget(each, minutes) for each in steps]


def train(
    model: ImageModel,
    images: Images,
    folder: str | Path,
    training: Training | None = None,
    *,
    steps: int | Sequence[int] | None = None,
    minutes: float | None = None,
    factor: int | None = None,
    initialize: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    held_out: Images | None = None,
    save_minutes: float = 5.0,
    sheet_minutes: float = 10.0,
    notes: dict[str, Any] | None = None,
    progress: bool = False,
) -> ImageModel:
    """Train a model and leave it in a folder.

    Under `accelerate launch` or `torchrun` all processes of all machines call this and share each batch.

    Args:
        model: with fresh weights, or see `initialize`. Making it after `torch.manual_seed` makes the whole run
            reproducible.
        images: to train on.
        folder: of the run.
        training: how to train.
        steps, minutes: the budget of each factor, counted from its first step, resumed or not; give one of the two.
            A sequence of steps has one number for each factor, the first being that of the image itself.
        factor: the factor to train, 0 being that of the image itself; None for all, the coarsest first.
        initialize: begin with the data-dependent initialisation of fresh weights; False goes on from the weights of a
            model that is trained already.
        resume: go on with the run in the folder; a factor that has no state there begins.
        overwrite: replace the run in the folder: what a run writes is removed, and nothing else.
        held_out: images whose views the sample sheets begin with; by default those to train on.
        save_minutes: time between two saved states; 0 saves after every step.
        sheet_minutes: time between two sample sheets; 0 for none.
        notes: what else to write into `run.json`, such as where the images come from.
        progress: show a progress bar.

    Returns:
        The model with the averaged weights, which is also in the folder: factors that are not trained are those there.

    Raises:
        ValueError: for a folder that is not empty or holds another run, a factor that another process trains, or an
            argument out of range.
        MemoryError: where a factor needs more memory than is free, before anything is written.
        FloatingPointError: when the loss or its gradient is not finite; what was saved last stays.
        OSError: when the disk is full; what was saved last stays.
    """
    training, folder = training or Training(), Path(folder)
    budgets = _budgets(steps, minutes, len(model.factors))
    if factor is not None and not 0 <= factor < len(model.factors):
        raise ValueError(f"factor={factor!r}: this model has the factors 0 to {len(model.factors) - 1}")
    if not (save_minutes >= 0 and sheet_minutes >= 0):
        raise ValueError(f"save_minutes={save_minutes!r}, sheet_minutes={sheet_minutes!r}: use numbers of at least 0")
    _check_fit(model, images)
    AcceleratorState._reset_state()  # or a second training in one process could not change the precision
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # asked for, it also shares work between processes
        mixed_precision="bf16" if training.bf16 else "no",
        gradient_accumulation_steps=training.accumulate,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        log_with="tensorboard",
        project_config=ProjectConfiguration(logging_dir=str(folder)),
    )
    if training.batch_size % (training.accumulate * accelerator.num_processes):
        raise ValueError(
            f"batch_size={training.batch_size!r}: use a multiple of accumulate={training.accumulate} times "
            f"the {accelerator.num_processes} processes"
        )
    factors = list(reversed(range(len(model.factors)))) if factor is None else [factor]
    shuffled = Shuffled(images, seed=training.seed, flip=training.flip, random_crop=training.random_crop)
    H, W = images.size if training.random_crop is None else (training.random_crop, training.random_crop)
    check_training_memory(
        model,
        factors,
        (H, W),
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        processes=accelerator.num_processes,
        initial=INITIAL_IMAGES if initialize else 0,
        bf16=training.bf16,
        device=accelerator.device,
    )
    model.size, model.card = images.size, {}
    with ExitStack() as held:
        if accelerator.is_main_process:
            run = {"training": asdict(training), **(notes or {})}
            held.enter_context(claim_folder(folder, model, run, factors, resume=resume, overwrite=overwrite))
        accelerator.wait_for_everyone()
        for k in factors:
            _train_factor(
                model,
                k,
                shuffled,
                folder,
                training,
                budgets[k],
                accelerator,
                initialize=initialize,
                held_out=held_out or images,
                save_minutes=save_minutes,
                sheet_minutes=sheet_minutes,
                progress=progress,
            )
            accelerator.free_memory()  # or it would keep the network and the optimizer until the last factor is done
    if resume and factor is not None:
        accelerator.wait_for_everyone()
        _take_others(model, factor, folder)
    return model.eval()


def _take_others(model: ImageModel, k: int, folder: Path) -> None:
    """Put all factors but one of a folder's model into this one."""
    for j, factor in enumerate(load(folder).factors):
        if j != k:
            model.factors[j].load_state_dict(factor.state_dict())


def _check_fit(model: ImageModel, images: Images) -> None:
    """Raise a ValueError for images that the model is not made for."""
    if model.levels != IMAGE_LEVELS:
        raise ValueError(f"levels={model.levels!r}: images have {IMAGE_LEVELS}; use a model with as many")
    if not model.classes:
        return
    if images.labels is None:
        raise ValueError(f"classes={model.classes!r}: {images.name} has no labels; use a model without classes")
    least, most = min(images.labels), max(images.labels)
    if least < 0 or most >= model.classes:
        raise ValueError(
            f"classes={model.classes!r}: {images.name} has labels from {least} to {most}; use a model with more classes"
        )


def _train_factor(
    model: ImageModel,
    k: int,
    shuffled: Shuffled,
    folder: Path,
    training: Training,
    budget: Budget,
    accelerator: Accelerator,
    *,
    initialize: bool,
    held_out: Images,
    save_minutes: float,
    sheet_minutes: float,
    progress: bool,
) -> None:
    # Build. Between processes only dropout differs.
    device, main = accelerator.device, accelerator.is_main_process
    history = History(folder / f"factor-{k}", accelerator)
    state_path = history.folder / STATE
    factor = model.to(device).factors[k]
    if initialize and not state_path.exists():
        x, labels = _collate([shuffled[position] for position in range(INITIAL_IMAGES)])
        factor.initialize(*model.links(x.to(device))[k], labels.to(device))
    averaged = AveragedModel(factor, multi_avg_fn=_warming_average(training.average))
    model.factors[k] = cast(Factor, averaged.module)  # the model that is sampled and saved has the averaged weights
    optimizers = make_optimizers(factor, training.optimizer, training.moments)
    stream = np.random.SeedSequence((training.seed, k, accelerator.process_index)).generate_state(1)
    torch.manual_seed(int(stream[0]))
    state = TrainingState(factor, averaged, optimizers, _random_states(accelerator))

    # Restore.
    if state_path.exists():
        restore_state(state, state_path)
        if main:
            publish(model, k, folder)  # or a run that was killed between state and model would never write the latter
    if len(state.random) != accelerator.num_processes:
        raise ValueError(f"the run in {str(folder)!r} has {len(state.random)} processes: resume it with as many")
    history.begin(state.step)
    batches = _batches(shuffled, training, state.step, accelerator)
    if training.compile:
        factor.compile()
    network, *prepared = accelerator.prepare(factor.train(), *optimizers)
    _set_random_state(state.random[accelerator.process_index], device)

    # Loop, and save.
    log_due, save_due, sheet_due = Due(LOG_MINUTES), Due(save_minutes), Due(sheet_minutes or math.inf)
    used = budget.used(state.step, state.seconds)
    with progress_bar(visible=progress and main, fields="{task.fields[note]}") as bar:
        task = bar.add_task(f"factor {k}", total=budget.total, note="")
        while used < budget.total:
            started = time.perf_counter()
            set_rate(prepared, training.rate(state.step, used / budget.total))
            bits = _optimize(model, k, network, prepared, batches, training, accelerator)
            averaged.update_parameters(factor)
            # A mean, so that all processes agree when to save and when to stop.
            seconds = _mean(time.perf_counter() - started, accelerator)
            state.step, state.seconds = state.step + 1, state.seconds + seconds
            history.add(bits, seconds)
            used = budget.used(state.step, state.seconds)
            done = used >= budget.total
            if log_due(seconds, done):
                history.write(state.step, state.seconds, training.batch_size)
            bar.update(task, completed=used, note=history.note)
            if save_due(seconds, done):
                state.random = _random_states(accelerator)
                if main:
                    save_factor(state, model, k, folder)
            if sheet_due(seconds, done and sheet_minutes > 0) and main:
                _try_sheet(model, k, held_out, history.folder / f"sheet-{state.step:06d}.png")
    history.end()


def _optimize(
    model: ImageModel,
    k: int,
    network: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Iterator[tuple[Tensor, Tensor]],
    training: Training,
    accelerator: Accelerator,
) -> float:
    """One step; returns the bits per dimension that the factor adds on the batch, over all processes."""
    bits = 0.0
    for _ in range(training.accumulate):
        x, labels = next(batches)
        view, given = model.links(x)[k]
        with accelerator.accumulate(network):
            nats = -network(view, given, labels).mean()
            accelerator.backward(nats / (math.log(2) * view[0].numel()))
            bits += nats.item() / (math.log(2) * x[0].numel()) / training.accumulate
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(network.parameters(), training.clip or math.inf)
                bits = _mean(bits, accelerator)
                if not (math.isfinite(bits) and math.isfinite(float(norm or 0))):
                    raise FloatingPointError(
                        f"factor {k} diverged: {bits} bits per dimension, a gradient of {norm}. What "
                        "was saved last is in place; begin again with a lower learning rate or clip"
                    )
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return bits


def _batches(
    shuffled: Shuffled, training: Training, step: int, accelerator: Accelerator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels from a step on, without end, and of each batch the share of this process."""
    positions = BatchSampler(
        range(step * training.batch_size, 2**62), training.batch_size // training.accumulate, drop_last=True
    )
    # With a generator of its own the loader leaves alone the one that draws dropout.
    return iter(
        accelerator.prepare(
            DataLoader(
                shuffled,
                batch_sampler=positions,
                num_workers=training.workers,
                collate_fn=_collate,
                generator=torch.Generator(),
            )
        )
    )


def _collate(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in items]), torch.tensor([label for _, label in items])


def _warming_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Polyak averaging that forgets the first steps faster: after n steps with a decay of (1 + n) / (10 + n)."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], steps: Tensor) -> None:
        n = int(steps)
        for mean, tensor in zip(averaged, current, strict=True):
            mean.lerp_(tensor, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def _mean(value: float, accelerator: Accelerator) -> float:
    """Over all processes."""
    if accelerator.num_processes == 1:
        return value
    return cast(Tensor, accelerator.reduce(torch.tensor(value, device=accelerator.device), "mean")).item()


def _random_states(accelerator: Accelerator) -> Tensor:
    """The states of the generators that draw dropout, (processes, bytes)."""
    cuda = accelerator.device.type == "cuda"
    state = torch.cuda.get_rng_state(accelerator.device) if cuda else torch.get_rng_state()
    return cast(Tensor, accelerator.gather(state.to(accelerator.device)[None])).cpu()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state.clone())  # which reads the whole storage, whatever part of it the tensor is


def _try_sheet(model: ImageModel, k: int, held_out: Images, path: Path) -> None:
    """Write a sheet of samples, or say in one line why there is none: no picture is worth the training."""
    try:
        _write_sheet(model, k, held_out, path)
    except Exception as error:
        reason = shorten(str(error)) or type(error).__name__
        print(f"pixelcnn: no {path.name}, training goes on ({reason})", file=sys.stderr)


def _write_sheet(model: ImageModel, k: int, held_out: Images, path: Path) -> None:
    """Samples of one factor beside real views, and below the views that both were given, if it is given one."""
    indices = range(min(SHEET_IMAGES, len(held_out)))
    view, given = model.links(held_out.batch(indices).to(next(model.parameters()).device))[k]
    labels = torch.tensor([held_out.labels[i] for i in indices]) if model.classes and held_out.labels else None
    factor = model.factors[k].eval()
    H, W = view.shape[-2:]
    samples = sample_factor(factor, len(view), (H, W), auxiliary=given, labels=model.check_labels(labels, len(view)))
    strips = [("samples", samples, model.formats[k][1]), ("real images", view, model.formats[k][1])]
    if given is not None:
        strips.insert(0, ("given", given, model.formats[k + 1][1]))
    save_picture(sheet(strips), path)
