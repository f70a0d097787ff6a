"""Enlarge a photograph four times with the model that comes with the package.

    python examples/enlarge_a_photograph.py [SMALL_PICTURE]

Without a picture it takes a shipped photograph, reduced. It writes `small.png` and `large.png`, which is four times
as wide and as high. The details are drawn, so they are plausible rather than true, but they contradict nothing that is
known: averaged over squares of 2x2 pixels, twice, the large picture is the small one, to the last bit.
"""

import sys

import torch

import pixelcnn

model = pixelcnn.load("photos-pyramid")
given = sys.argv[1] if len(sys.argv) > 1 else pixelcnn.load_images("photos", "test", size=24)[4]
(small,) = pixelcnn.to_pil(given)

large = model.upscale(small, 4, seed=0)  # a picture, since a picture went in
small.save("small.png")
large.save("large.png")

same = torch.equal(model.views(large)[2], model.views(small)[0])
print(f"enlarged {small.size} to {large.size}; made small again it is the same: {same}")
