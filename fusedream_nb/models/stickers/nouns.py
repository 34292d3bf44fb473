"""What the sticker world is made of: its words, their synonyms, and which pairs are held out."""

from pathlib import Path

SHEETS = {name: Path(__file__).parent / f"sprites_{name}.webp" for name in ("fluent", "noto")}

COLUMNS = 7  # sprites in a row of a sheet
CODE_POINTS: dict[str, str] = {  # of the emoji that is drawn for a noun, in both sheets
    "dog": "1f436",
    "cat": "1f431",
    "elephant": "1f418",
    "butterfly": "1f98b",
    "sailboat": "26f5",
    "church": "26ea",
    "castle": "1f3f0",
    "car": "1f697",
    "robot": "1f916",
    "rabbit": "1f430",
    "bird": "1f426",
    "penguin": "1f427",
    "fish": "1f41f",
    "pineapple": "1f34d",
    "avocado": "1f951",
    "mushroom": "1f344",
    "sunflower": "1f33b",
    "tree": "1f333",
    "house": "1f3e0",
    "rocket": "1f680",
    "frog": "1f438",
    "owl": "1f989",
    "pig": "1f437",
    "lion": "1f981",
    "horse": "1f434",
    "turtle": "1f422",
    "motorcycle": "1f3cd",
    "fox": "1f98a",
}
NOUNS = tuple(CODE_POINTS)

HUES: dict[str, float] = {  # degrees on the colour circle
    "red": 0.0,
    "yellow": 55.0,
    "green": 120.0,
    "cyan": 180.0,
    "blue": 232.0,
    "purple": 288.0,
}
COLOURS = tuple(HUES)

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "white": ("on a white background", "on white"),
    "black": ("on a black background", "on black"),
    "sky": ("in the sky", "in the blue sky", "among the clouds"),
    "night": ("in the night sky", "under the night sky", "at night"),
    "grass": ("on grass", "on the grass", "in a meadow"),
    "beach": ("on the beach", "on a beach", "by the sea"),
    "snow": ("in the snow", "on snow", "in winter"),
    "water": ("under water", "underwater", "in the ocean"),
    "sunset": ("at sunset", "in the sunset", "in the evening"),
    "forest": ("in the forest", "in a dark forest", "in the woods"),
}

STYLES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of", "an image of", "a picture of", ""),
    "sketch": ("a sketch of", "a pencil drawing of"),
    "watercolour": ("a watercolour of", "a painting of", "a watercolor of"),
    "mosaic": ("a mosaic of",),
    "monochrome": ("a monochrome photo of", "a black and white photo of"),
    "pixel art": ("pixel art of", "a pixel art picture of"),
}

EFFECTS: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "flaming": ("flaming", "burning"),
    "frozen": ("frozen", "icy"),
}

RELATIONS: dict[str, tuple[str, ...]] = {
    "next to": ("next to", "near", "beside"),
    "on top of": ("on top of",),
    "above": ("above", "over"),
    "below": ("below", "under"),
}

NOTHING = ("nothing", "an empty picture", "an empty scene")  # before a background, where no object is
FORMLESS = ("noise", "a texture", "nothing")  # where no background is either

SYNONYMS: dict[str, tuple[str, ...]] = {
    "dog": ("dog", "puppy"),
    "cat": ("cat", "kitten"),
    "sailboat": ("sailboat", "boat", "ship"),
    "car": ("car", "automobile"),
    "rabbit": ("rabbit", "bunny"),
    "motorcycle": ("motorcycle", "motorbike"),
    "house": ("house", "home"),
}

# (colour, noun): no picture of these is ever shown to the generator; they are its counterfactuals.
GENERATOR_HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("blue", "dog"),
        ("green", "dog"),
        ("green", "elephant"),
        ("purple", "lion"),
        ("blue", "lion"),
        ("blue", "cat"),
        ("purple", "cat"),
        ("red", "rabbit"),
        ("green", "penguin"),
        ("yellow", "castle"),
        ("blue", "mushroom"),
        ("purple", "frog"),
        ("red", "frog"),
        ("cyan", "pig"),
        ("green", "fox"),
        ("blue", "horse"),
        ("purple", "tree"),
        ("red", "turtle"),
        ("cyan", "house"),
        ("green", "church"),
        ("purple", "car"),
        ("yellow", "robot"),
        ("red", "owl"),
        ("blue", "sunflower"),
        ("cyan", "pineapple"),
        ("purple", "bird"),
        ("green", "butterfly"),
        ("red", "fish"),
        ("yellow", "rocket"),
        ("purple", "motorcycle"),
    }
)
# (background, noun): likewise never shown to the generator.
GENERATOR_HELD_OUT_PLACES: frozenset[tuple[str, str]] = frozenset(
    {
        ("sky", "car"),
        ("sky", "castle"),
        ("sky", "elephant"),
        ("water", "castle"),
        ("water", "car"),
        ("night", "fish"),
        ("snow", "turtle"),
        ("forest", "sailboat"),
    }
)
# (colour, noun): shown to neither the CLIP nor the judge (nor the generator).
ENCODER_HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("yellow", "elephant"),
        ("cyan", "lion"),
        ("purple", "sailboat"),
        ("green", "owl"),
        ("blue", "fox"),
        ("red", "penguin"),
        ("cyan", "castle"),
        ("yellow", "butterfly"),
    }
)
