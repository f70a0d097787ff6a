"""Write the listing of recipes that `pixelcnn models` shows: `python tools/list_recipes.py`."""

from pixelcnn.common.files import write_json
from pixelcnn.zoo.listing import LISTING
from pixelcnn.zoo.recipes import RECIPES, summarize

if __name__ == "__main__":
    write_json(LISTING, {name: summarize(name) for name in RECIPES})
