"""The training loop, which trains one factor at a time and reads from top to bottom: build, restore, loop, save.

A run is a folder. Besides the trained model (`config.json` and `model.safetensors`, which holds the averaged weights)
it contains:

    run.json                      how the model is trained, and on which data
    factor-K/state.safetensors    everything the next step needs, for `resume`
    factor-K/history.jsonl        a line every few seconds: step, seconds, bits per dimension, speed, share done
    factor-K/sheet-STEP.png       samples; a factor that is given a view gets the views of held-out images
    factor-K/events.*             the same history for TensorBoard
    factor-K/.lock                held by the process that trains the factor

Resuming is exact. The batch of a step depends only on the seed and the step number (`Shuffled`), and so does dropout,
which also differs between processes; of streamed images, the state holds how far each process has come. The state holds
everything else, too: the weights, their average and the optimizer's moments. So a run can be resumed with another
number of processes, unless it streams. (Accelerate can save states too, but it reads parts of them as unrestricted
pickles.)
"""

__all__ = ["train"]

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pixelcnn.common.compiler import explain_compiler
from pixelcnn.common.devices import naming_memory
from pixelcnn.common.processes import naming_lost, together
from pixelcnn.common.progress import progress_bar
from pixelcnn.common.threads import threads_for
from pixelcnn.data.images import Images, ImageSource, as_images
from pixelcnn.data.order import Shuffled, ShuffledStream, shuffle
from pixelcnn.data.shared import check_same_images
from pixelcnn.data.streams import StreamedImages
from pixelcnn.models.factor import Factor
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.nn.blocks import recompute_activations
from pixelcnn.training.devices import make_accelerator
from pixelcnn.training.history import Due, History
from pixelcnn.training.interrupt import Interruption
from pixelcnn.training.memory import check_training_memory, print_estimate
from pixelcnn.training.optimizers import make_optimizers, set_rate
from pixelcnn.training.options import Budget, Run, Training, budgets_of
from pixelcnn.training.runs import STATE, claim_folder, merge_factor, save_factor
from pixelcnn.training.sheets import try_sheet
from pixelcnn.training.state import TrainingState, restore_state
from pixelcnn.training.steps import (
    collate,
    mean_over_processes,
    open_batches,
    seed_dropout,
    warming_average,
)
from pixelcnn.training.streaming import StreamedBatches

SMALLER = "use --recompute, a smaller --batch-size or --random-crop, or split the batch (--accumulate 2)"
LOG_MINUTES = 2 / 60
IMAGE_LEVELS = 256
INITIAL_IMAGES = 32  # images used by the data-dependent initialization


@naming_lost()
def train(
    model: ImageModel,
    images: Images | StreamedImages | ImageSource,
    folder: str | Path,
    training: Training | None = None,
    *,
    steps: int | Sequence[int] | None = None,
    minutes: float | None = None,
    run: Run | None = None,
) -> ImageModel:
    """Train a model and save it to a folder.

    Under `accelerate launch` or `torchrun`, all processes on all machines call this and share each batch.

    Args:
        model: the model to train, with fresh weights (or see `Run.initialize`). Create it after `torch.manual_seed` to
            make the whole run reproducible.
        images: the training images, made by `load_images` or `stream_images`; or a source that it takes: a sequence of
            pictures of one size or a `datasets.Dataset` with an image column, of which all are used, or a name, of
            which the images of the split `train` are used.
        folder: the folder of the run.
        training: how to train.
        steps, minutes: the budget of each factor, counted from its first step even when resumed; give one of the two.
            A sequence of steps has one number for each factor, starting with the factor of the image itself.
        run: where to start, and what to save and show.

    Returns:
        The model with the averaged weights, as saved in the folder. Factors that were not trained are taken from there.

    Raises:
        ValueError: if the folder is not empty or holds a different run, another process is training one of the
            factors, or an argument is out of range.
        MemoryError: if a factor needs more memory than is free. Nothing has been written yet.
        FloatingPointError: if the loss or its gradient is not finite. The last saved state stays.
        OSError: if the disk is full. The last saved state stays.
        KeyboardInterrupt: on Ctrl-C, or SIGTERM, once the step at hand is done and saved; on a second one at once.

    Example:
        >>> import pixelcnn
        >>> images = pixelcnn.load_images("photos", size=8)
        >>> model = pixelcnn.PyramidPixelCNN(depth=1, filters=8, blocks=1, embedding_blocks=1)
        >>> model = pixelcnn.train(model, images, "a-run", pixelcnn.Training(batch_size=4), steps=2)
        >>> model.sample(2).shape
        torch.Size([2, 3, 8, 8])
    """
    training, run, folder = training or Training(), run or Run(), Path(folder)
    budgets = budgets_of(steps, minutes, len(model.factors))
    if run.factor is not None and not 0 <= run.factor < len(model.factors):
        raise ValueError(f"factor={run.factor!r}: this model has the factors 0 to {len(model.factors) - 1}")
    if not isinstance(images, StreamedImages):
        images = as_images(images, "train", model.formats[0][0])
    accelerator = make_accelerator(training, folder, run.device)
    factors = list(reversed(range(len(model.factors)))) if run.factor is None else [run.factor]
    with together():
        _check_fit(model, images)
        shuffled = shuffle(images, seed=training.seed, flip=training.flip, random_crop=training.random_crop)
        estimates = check_training_memory(
            model,
            factors,
            images.size if training.random_crop is None else (training.random_crop, training.random_crop),
            training,
            processes=accelerator.num_processes,
            initial=INITIAL_IMAGES if run.initialize else 0,
            device=accelerator.device,
        )
    check_same_images(images)
    model.size, model.card = images.size, {}
    interruption = Interruption()
    with interruption.noting(), ExitStack() as held:
        with together():
            if accelerator.is_main_process:  # which decides for all whether the run begins or goes on
                notes = {"training": asdict(training), **(run.notes or {})}
                claim = claim_folder(folder, model, notes, factors, resume=run.resume, overwrite=run.overwrite)
                held.enter_context(claim)
        for k in factors:
            job = _Job(model, k, shuffled, folder, training, budgets[k], run, accelerator, interruption)
            side = training.random_crop
            H, W = model.sizes(images.size if side is None else (side, side))[k]
            pixels = training.batch_size // (training.accumulate * accelerator.num_processes) * H * W
            if run.progress and accelerator.is_main_process:
                print_estimate(k, estimates[k], accelerator.device)
            with naming_memory(accelerator.device, SMALLER), threads_for(model.factors[k], pixels):
                _train_factor(job)
            accelerator.free_memory()  # otherwise this network and its optimizer stay until the last factor is done
            interruption.leave(folder)
    if run.resume and run.factor is not None:
        accelerator.wait_for_everyone()
        _take_others(model, run.factor, folder)
    return model.eval()


def _take_others(model: ImageModel, k: int, folder: Path) -> None:
    """Load all factors except factor k from the model in a folder."""
    for j, factor in enumerate(load(folder).factors):
        if j != k:
            model.factors[j].load_state_dict(factor.state_dict())


def _check_fit(model: ImageModel, images: Images | StreamedImages) -> None:
    """Raise a ValueError if the model cannot be trained on these images."""
    if model.levels != IMAGE_LEVELS:
        raise ValueError(f"levels={model.levels!r}: images have {IMAGE_LEVELS}; use a model with {IMAGE_LEVELS} levels")
    if not model.classes:
        return
    if images.labels is None:
        raise ValueError(f"classes={model.classes!r}: {images.name} has no labels; use a model without classes")
    least, most = min(images.labels), max(images.labels)
    if least < 0 or most >= model.classes:
        raise ValueError(
            f"classes={model.classes!r}: {images.name} has labels from {least} to {most}; use a model with more classes"
        )


@dataclass(frozen=True, eq=False)
class _Job:
    """Everything needed to train one factor."""

    model: ImageModel
    k: int
    shuffled: Shuffled | ShuffledStream
    folder: Path
    training: Training
    budget: Budget
    run: Run
    accelerator: Accelerator
    interruption: Interruption


def _build(job: _Job, *, initialize: bool) -> TrainingState:
    """Make the state before the first step, which is the same in all processes."""
    model, k, training, device = job.model, job.k, job.training, job.accelerator.device
    factor = model.to(device).factors[k]
    if initialize:
        x, labels = collate(job.shuffled.first(INITIAL_IMAGES))
        factor.initialize(*model.links(x.to(device))[k], labels.to(device))
    averaged = AveragedModel(factor, multi_avg_fn=warming_average(training.average))
    model.factors[k] = cast(Factor, averaged.module)  # we sample and save the averaged weights
    optimizers = make_optimizers(factor, training.optimizer, training.moments)
    return TrainingState(factor, averaged, optimizers)


def _train_factor(job: _Job) -> None:
    model, k, training, budget, run = job.model, job.k, job.training, job.budget, job.run
    accelerator, main = job.accelerator, job.accelerator.is_main_process
    # Build.
    history = History(job.folder / f"factor-{k}", accelerator)
    state_path = history.folder / STATE
    state = _build(job, initialize=run.initialize and not state_path.exists())

    # Restore.
    restore_state(state, state_path)
    if main and state.step:
        merge_factor(model, k, job.folder)  # a run killed between saving state and model lacks the latter
    history.begin(state.step)
    recompute_activations(state.factor, recompute=training.recompute)  # not of its average, which draws the sheets
    with together():  # a process may lack a shard
        batches = open_batches(job.shuffled, training, state.step, accelerator, state.stream)
    if training.compile:
        state.factor.compile()
    network, *prepared = accelerator.prepare(state.factor.train(), *state.optimizers)

    # Loop, and save.
    log_due, save_due, sheet_due = Due(LOG_MINUTES), Due(run.save_minutes), Due(run.sheet_minutes or math.inf)
    used = budget.used(state.step, state.seconds)
    with progress_bar(visible=run.progress and main, fields="{task.fields[note]}") as bar:
        task = bar.add_task(f"factor {k}", total=budget.total, note="")
        while used < budget.total:
            started = time.perf_counter()
            set_rate(prepared, training.rate(state.step, used / budget.total))
            seed_dropout(training, k, state.step, accelerator)
            with explain_compiler():
                bits = _step(job, network, prepared, batches)
            state.averaged.update_parameters(state.factor)
            # Averaged, so that all processes agree on when to save and when to stop.
            leaving = mean_over_processes(float(job.interruption.asked), accelerator) > 0
            seconds = mean_over_processes(time.perf_counter() - started, accelerator)
            state.step, state.seconds = state.step + 1, state.seconds + seconds
            history.add(bits, seconds)
            used = budget.used(state.step, state.seconds)
            done = used >= budget.total
            if log_due(seconds, done or leaving):
                history.write(state.step, state.seconds, training.batch_size, min(1.0, used / budget.total))
            bar.update(task, completed=used, note=history.note)
            if save_due(seconds, done or leaving):
                state.stream = batches.save() if isinstance(batches, StreamedBatches) else {}
                if main:
                    save_factor(state, model, k, job.folder)
            if leaving:
                break
            if sheet_due(seconds, done and run.sheet_minutes > 0) and main:
                held_out = run.held_out or job.shuffled.shown
                with job.interruption.expendable():
                    try_sheet(model, k, held_out, history.folder / f"sheet-{state.step:06d}.png")
    history.end()


def _step(
    job: _Job,
    network: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Iterator[tuple[Tensor, Tensor]],
) -> float:
    """Take one step and return the bits per dimension that this factor contributes, averaged over all processes."""
    model, k, training, accelerator = job.model, job.k, job.training, job.accelerator
    bits = 0.0
    for _ in range(training.accumulate):
        x, labels = next(batches)
        view, given = model.links(x)[k]
        with accelerator.accumulate(network):
            nats = -network(view, given, labels, consistent=model.consistent).mean()
            accelerator.backward(nats / (math.log(2) * view[0].numel()))
            bits += nats.item() / (math.log(2) * x[0].numel()) / training.accumulate
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(network.parameters(), training.clip or math.inf)
                bits = mean_over_processes(bits, accelerator)
                if not (math.isfinite(bits) and math.isfinite(float(norm or 0))):
                    raise FloatingPointError(
                        f"factor {k} diverged: {bits} bits per dimension, gradient norm {norm}. The last "
                        "saved state is intact; start again with a lower learning rate or clip"
                    )
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return bits
