"""Enlarge a photograph four times with the model that comes with the package.

    python examples/enlarge_a_photograph.py [SMALL_PICTURE]

Without a picture it takes a shipped photograph, reduced. It writes `small.png` and `large.png`, which is four times
as wide and as high. The details are drawn, so they are plausible rather than true, but they contradict nothing that is
known: averaged over squares of 2x2 pixels, twice, the large picture is the small one, to the last bit.
"""

import sys

import numpy as np
import torch
from PIL import Image

import pixelcnn
from pixelcnn.pictures import to_picture

model = pixelcnn.load("photos-pyramid")
if len(sys.argv) > 1:
    pixels = np.array(Image.open(sys.argv[1]).convert("RGB"))
    small = torch.from_numpy(pixels).permute(2, 0, 1)[None]
else:
    small = pixelcnn.load_images("photos", "test", size=24).batch([4])

large = pixelcnn.upscale(model, small, 4, seed=0)
to_picture(small[0], model.levels).save("small.png")
to_picture(large[0], model.levels).save("large.png")

_, _, again = model.views(large)
print(f"enlarged {tuple(small.shape[2:])} to {tuple(large.shape[2:])}; made small again it is the same:", end=" ")
print(torch.equal(again, small))
