"""Batches of a stream: each process reads its own shards, and the state keeps how far each of them has come."""

__all__ = ["StreamedBatches"]

import json
from collections.abc import Mapping
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from pixelcnn.common.text import shorten
from pixelcnn.data.order import Position, ShuffledStream
from pixelcnn.training.options import Training


class StreamedBatches:
    """An endless iterator over this process's share of the batches, images and labels.

    Args:
        stream: the images in their order.
        training: the size of the batches, and the number of workers, which are threads here.
        saved: what `save` returned, to go on from there; nothing to begin.
        accelerator: the processes and their devices.

    Raises:
        ValueError: if the shards or the number of processes are not as they were, or there are fewer shards than
            processes.
    """

    def __init__(
        self, stream: ShuffledStream, training: Training, saved: Mapping[str, Tensor], accelerator: Accelerator
    ) -> None:
        self.stream, self.accelerator, self.position = stream, accelerator, Position()
        rank, ranks = accelerator.process_index, accelerator.num_processes
        if saved:
            _check_shards(json.loads(bytes(saved["shards"].tolist())), stream.images.list_shards())
            if len(saved["positions"]) != ranks:
                raise ValueError(
                    f"the run used {len(saved['positions'])} processes, each of which reads its own shards: resume it "
                    "with the same number"
                )
            self.position = Position(*saved["positions"][rank].tolist())
        share = training.batch_size // ranks
        self._number = share // training.accumulate
        self._images = stream.visit(self.position, rank=rank, ranks=ranks, least=share, threads=training.workers)

    def __iter__(self) -> "StreamedBatches":
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        found = []
        for _ in range(self._number):
            x, self.position = next(self._images)
            found.append(x)
        batch, device = torch.stack(found), self.accelerator.device
        return batch.to(device), torch.full((len(batch),), -1, device=device)

    def save(self) -> dict[str, Tensor]:
        """Collect the positions of all processes, (processes, 5), and the list of shards."""
        positions = cast(Tensor, self.accelerator.gather(torch.tensor([self.position], device=self.accelerator.device)))
        listed = json.dumps(self.stream.images.list_shards()).encode()
        return {"positions": positions.cpu(), "shards": torch.frombuffer(bytearray(listed), dtype=torch.uint8)}


def _check_shards(before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Raise a ValueError that names the first shard that is not as it was."""
    for name, size in before.items():
        if name not in now:
            raise ValueError(f"shard {name!r} is missing, which the run began with: put it back, or begin anew")
        if now[name] != size:
            was = f"has {now[name]} bytes, and had {size} when the run began"
            raise ValueError(f"shard {name!r} {was}: put the old file back, or begin anew")
    if more := [name for name in now if name not in before]:
        raise ValueError(f"shards were added since the run began, {shorten(str(more))}: move them away, or begin anew")
    if [*before] != [*now]:
        raise ValueError("the shards are in another order than when the run began: name the same folder or pattern")
