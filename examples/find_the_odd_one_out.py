"""Score pictures with a model of photographs, and find the odd one out.

    python examples/find_the_odd_one_out.py [PICTURE ...]

How many bits a picture needs depends on how busy it is, so that number alone says little. A lossless WebP file measures
how busy it is: photographs need about as many bits under the model as such a file has, and pictures of another kind
need more (Serra et al., ICLR 2020). Without arguments, a pattern of stripes is hidden among twelve photographs. Some of
them need more bits than the stripes, and yet the stripes stand out.
"""

import io
import sys

import numpy as np
import torch
from PIL import Image

import pixelcnn
from pixelcnn.pictures import to_picture

if len(sys.argv) > 1:
    pictures = {name: Image.open(name).convert("RGB") for name in sys.argv[1:]}
else:
    photographs = pixelcnn.load_images("photos", "test", size=48).batch(range(12))
    pictures = {f"photograph {i}": to_picture(x, 256) for i, x in enumerate(photographs)}
    pictures["stripes"] = Image.fromarray(np.tile(np.arange(48, dtype=np.uint8)[:, None] * 37, (48, 1, 3)))

model = pixelcnn.load("photos-pyramid")
scores: dict[str, float] = {}
print("bits for each number: under the model, in a file, difference")
for name, picture in pictures.items():
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    file = io.BytesIO()
    picture.save(file, "WebP", lossless=True)
    bits = sum(float(view.sum()) for view in pixelcnn.surprisal(model, x[None])) / x.numel()
    scores[name] = bits - 8 * len(file.getvalue()) / x.numel()
    print(f"{name}: {bits:.2f}, {bits - scores[name]:.2f}, {scores[name]:+.2f}")
print("the odd one out:", max(scores, key=lambda name: scores[name]))
