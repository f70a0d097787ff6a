"""Write a view of your own, a poster, and draw pictures that certainly have it.

    python examples/own_view.py

A poster keeps the top two bits of each color: four shades each of red, green and blue. The class below is all that the
package needs to train, score and draw a model of posters and of pictures given their poster. `check_auxiliary` tries
its bounds on all images of a tiny size. The script trains for some seconds, and then draws pictures for the posters of
photographs that the model has not seen: `posters.png` shows photographs, their posters, and the drawn pictures, which
have the same posters, however little the model has learned.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import pixelcnn
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.pictures import save_picture, sheet


@pixelcnn.register_auxiliary
@dataclass(frozen=True)
class Poster(pixelcnn.CellAuxiliary):
    """The top bits of each channel."""

    bits: int = 2

    def view_format(self, channels: int, levels: int) -> tuple[int, int]:
        return channels, 2**self.bits

    def __call__(self, x: Tensor, levels: int) -> Tensor:
        return (x.long() * 2**self.bits // levels).to(x.dtype)

    def weights(self, channels: int) -> list[int]:
        return [1] * channels

    def sums(self, view: Tensor, size: tuple[int, int], levels: int) -> Bounds:
        lowest, beyond = (-(-(view.long() + side) * levels // 2**self.bits) for side in (0, 1))
        return Bounds(lowest, beyond - 1)


pixelcnn.check_auxiliary(Poster(1), channels=3, levels=3, size=(1, 2))
torch.manual_seed(0)
model = pixelcnn.ImageModel(auxiliaries=[Poster()], filters=16, blocks=1, scales=1, embedding_blocks=1, dropout=0.0)
training = pixelcnn.Training(batch_size=4, optimizer="muon", learning_rate=0.02, average=0.95)
pictures = pixelcnn.load_images("photos", "train", size=32)
model = pixelcnn.train(model, pictures, "posters", training, steps=40, run=pixelcnn.Run(factor=0, sheet_minutes=0))

photographs = pixelcnn.load_images("photos", "test", size=32).batch(range(8))
posters = model.views(photographs)[1]
drawn = pixelcnn.sample(model, 8, 32, given=(1, posters), options=pixelcnn.DrawOptions(scale_shift=-1.0))
strips = [("photographs", photographs, 256), ("their posters", posters, 4), ("drawn", drawn, 256)]
save_picture(sheet(strips), Path("posters.png"))
print("the drawn pictures have the given posters:", torch.equal(model.views(drawn)[1], posters))
