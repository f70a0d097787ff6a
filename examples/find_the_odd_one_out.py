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
from PIL import Image

import pixelcnn

if len(sys.argv) > 1:
    pictures = dict(zip(sys.argv[1:], pixelcnn.to_pil(sys.argv[1:]), strict=True))
else:
    photographs = pixelcnn.load_images("photos", "test", size=48).batch(range(12))
    pictures = {f"photograph {i}": picture for i, picture in enumerate(pixelcnn.to_pil(photographs))}
    pictures["stripes"] = Image.fromarray(np.tile(np.arange(48, dtype=np.uint8)[:, None] * 37, (48, 1, 3)))

model = pixelcnn.load("photos-pyramid")
scores: dict[str, float] = {}
print("bits for each number: under the model, in a file, difference")
for name, picture in pictures.items():
    numbers = 3 * picture.width * picture.height
    file = io.BytesIO()
    picture.save(file, "WebP", lossless=True)
    bits = sum(float(view.sum()) for view in pixelcnn.surprisal(model, picture)) / numbers
    scores[name] = bits - 8 * len(file.getvalue()) / numbers
    print(f"{name}: {bits:.2f}, {bits - scores[name]:.2f}, {scores[name]:+.2f}")
print("the odd one out:", max(scores, key=lambda name: scores[name]))
