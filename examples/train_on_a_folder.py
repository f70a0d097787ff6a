"""Train a small model on a folder of pictures, and look at what it has learned.

    python examples/train_on_a_folder.py [FOLDER] [STEPS]

Without a folder it takes the photographs that come with the package. Each of the three factors is trained for 40 steps,
which take seconds. The folder `mine` then holds the model, and `mine/samples.png` shows what it draws. A raw picture
has 8 bits for each number, and an untrained model needs more than that for pictures that it has not seen; even this
short training brings it below 7. For samples that look like your pictures, take thousands of steps and more filters.
"""

import sys
from pathlib import Path

import torch

import pixelcnn
from pixelcnn.pictures import save_picture, sheet

source = sys.argv[1] if len(sys.argv) > 1 else "photos"
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 40
pictures = pixelcnn.load_images(source, "train", size=32)
held_out = pixelcnn.load_images(source, "test", size=32)

torch.manual_seed(0)
model = pixelcnn.PyramidPixelCNN(2, filters=16, blocks=1, embedding_blocks=1, dropout=0.0)
before = pixelcnn.evaluate(model, held_out, limit=16).bits_per_dim
training = pixelcnn.Training(batch_size=4, optimizer="muon", learning_rate=0.02, average=0.95)
model = pixelcnn.train(model, pictures, "mine", training, steps=steps, run=pixelcnn.Run(sheet_minutes=0))
after = pixelcnn.evaluate(model, held_out, limit=16).bits_per_dim
print(f"bits for each number of a held-out picture: {before:.2f} before training, {after:.2f} after it")

views = pixelcnn.sample_views(model, 8)
strips = [(f"drawn at {view.shape[3]}x{view.shape[2]}", view, model.levels) for _, view in views]
save_picture(sheet(strips), Path("mine/samples.png"))
