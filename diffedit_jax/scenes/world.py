"""The vocabulary of the emoji world: what may stand in a scene, and what is held out."""

OBJECTS = (
    "cat", "dog", "fox", "panda", "frog", "pig", "apple", "car", "heart", "star", "balloon",
    "house", "tree", "rocket", "flower", "mushroom",
)  # fmt: skip

# Never seen by any generative training; kept for personalisation. Value: the class word.
HELD_OUT_OBJECTS = {
    "tiger": "cat",
    "wolf": "dog",
    "koala": "panda",
    "tulip": "flower",
    "bus": "car",
}

ANIMALS = ("cat", "dog", "fox", "panda", "frog", "pig")
RECOLOURABLE = ("apple", "car", "heart", "star", "balloon")

COLOURS = {
    "red": (222, 40, 40),
    "yellow": (246, 206, 36),
    "green": (52, 168, 60),
    "blue": (44, 96, 226),
    "purple": (142, 54, 190),
}

BACKGROUNDS = {
    "red": (222, 76, 70),
    "yellow": (248, 220, 96),
    "green": (104, 190, 98),
    "blue": (84, 142, 234),
    "purple": (156, 98, 204),
    "pink": (250, 172, 206),
    "white": (244, 244, 242),
    "black": (38, 38, 42),
}

PATTERNS = ("plain", "striped", "dotted")
STYLES = ("none", "3d render", "pixel art", "neon sign")
LAYOUTS = ("centre", "left", "right", "pair")

# Objects whose own colour would melt into the background.
_CAMOUFLAGE = {
    "cat": ("yellow",),
    "frog": ("green",),
    "tree": ("green",),
    "pig": ("pink",),
    "panda": ("black",),
    "flower": ("yellow",),
    "mushroom": ("red",),
    "tiger": ("yellow",),
}


def visible(name: str, colour: str | None, background: str) -> bool:
    """True if the object stands out: visible("cat", None, "yellow") is False."""
    return background != colour and background not in _CAMOUFLAGE.get(name, ())


def _held_out_pairs() -> tuple[tuple[str, str], ...]:
    backgrounds = tuple(BACKGROUNDS)
    pairs = []
    for index, name in enumerate(OBJECTS):
        background = backgrounds[(3 * index + 1) % len(backgrounds)]
        if index % 4 != 3 and visible(name, None, background):
            pairs.append((name, background))
    return tuple(pairs)


# About a tenth of all object x background pairs, never seen in training, reported apart.
HELD_OUT_PAIRS = _held_out_pairs()


def held_out(name: str, background: str) -> bool:
    """True if this object on this background belongs to the held-out pairs."""
    return (name, background) in HELD_OUT_PAIRS
