"""Portraits in two drawn styles, rendered from a seed by the packages of the extra `avatars`; nothing is downloaded.

The designs are remixes, as the package `dicebear-styles` ships them, of "ToonHead" by Johan Melin
(https://www.figma.com/community/file/1589627891082866389) and of "Personas by Draftbit" by Draftbit
(https://personas.draftbit.com/), both under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Name the artists
wherever images are shown.
"""

import colorsys
import io
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rdmd.config import Avatars
from rdmd.data.samples import REGIONS, SPLITS, Reading, Sample, Split

if TYPE_CHECKING:
    from dicebear import Style

# The ends of the ramp of skins. A face in Personas lies under white of 36% opacity, which turns darker skins grey.
_SKINS = (0.96, 0.80, 0.69), (0.42, 0.25, 0.16)
_HAIRS = ("#2c1b18", "#d6b370", "#724133", "#a55728", "#b58143", "#e8e1e1")
_MOUTHS = ("smile", "sad", "open")
# A pixel belongs to a region if the region's colour makes up more than this share of it.
_SHARE = 0.5
# Both styles leave much background around the head.
_ZOOM = 1.2


@dataclass(frozen=True)
class Portrait:
    """What a portrait shows in either style. Colours are `#rrggbb`."""

    skin: str
    hair: str
    clothes: str
    background: str
    long: bool
    """Whether the hair is long."""
    beard: bool
    mouth: str
    wink: bool


def draw(rng: random.Random) -> Portrait:
    """A random portrait: half have long hair, 30% a beard, 20% a wink; mouths are equally likely."""
    light, dark = _SKINS
    depth = rng.random()
    return Portrait(
        skin=_hex(*(a + (b - a) * depth for a, b in zip(light, dark, strict=True))),
        hair=rng.choice(_HAIRS),
        clothes=_hex(*colorsys.hls_to_rgb(rng.random(), 0.5, 0.6)),
        background=_hex(*colorsys.hls_to_rgb(rng.random(), 0.84, 0.55)),
        long=rng.random() < 0.5,
        beard=rng.random() < 0.3,
        mouth=rng.choice(_MOUTHS),
        wink=rng.random() < 0.2,
    )


def read(domain: Avatars, resolution: int, name: str, seed: int) -> Reading:
    """`domain.train` and `domain.test` portraits in `domain.style`, uint8 (resolution, resolution, 3).

    The training portraits are a function of (seed, domain name), so two domains share none. Those of the test split are
    a function of the seed alone: two domains show the same portraits in the same order, each with its number as `pair`
    and with a map of `REGIONS`. What `Portrait` does not hold (the cut of hair and clothes, brows, the nose) is drawn
    anew for each image.
    """
    parts = (_samples(domain, split, resolution, name, seed) for split in SPLITS)
    return Reading(domain.train + domain.test, chain.from_iterable(parts))


def _samples(domain: Avatars, split: Split, resolution: int, name: str, seed: int) -> Iterator[Sample]:
    shared = split == "test"
    rng = random.Random(f"avatars:{seed}:{split}" if shared else f"avatars:{seed}:{split}:{name}")
    for index in range(domain.test if shared else domain.train):
        portrait, free = draw(rng), f"{seed}:{name}:{split}:{index}"
        facts: dict[str, Any] = asdict(portrait)
        yield Sample(
            f"{domain.style}/{split}[{index}]",
            render(portrait, domain.style, free, resolution),
            split=split,
            facts=facts | {"pair": index} if shared else facts,
            regions=regions(portrait, domain.style, free, resolution) if shared else None,
        )


def render(portrait: Portrait, style: str, free: str, resolution: int) -> np.ndarray:
    """A portrait in a style, uint8 (resolution, resolution, 3). `free` is the seed of what the portrait leaves open."""
    from dicebear import Avatar
    from resvg_py import svg_to_bytes

    options = _toon_head(portrait) if style == "toon-head" else _personas(portrait)
    svg = str(Avatar(_style(style), options | {"seed": free, "scale": _ZOOM}))
    png = svg_to_bytes(svg_string=svg, width=resolution, height=resolution)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def regions(portrait: Portrait, style: str, free: str, resolution: int) -> np.ndarray:
    """Where the portrait's colours are: uint8 (resolution, resolution), an index of `REGIONS` plus one, or 0.

    A style mixes its colours linearly, so a colour's share of a pixel is the pixel's change when the colour changes
    from black to full. Skin, hair and clothes take one channel each.
    """
    black = {**asdict(portrait), **dict.fromkeys(REGIONS, "#000000")}
    primaries = {"skin": "#ff0000", "hair": "#00ff00", "clothes": "#0000ff"}
    none, three, last = (
        render(Portrait(**black | colours), style, free, resolution).astype(float) / 255
        for colours in ({}, primaries, {"background": "#ffffff"})
    )
    shares = np.concatenate([three - none, (last - none)[..., :1]], axis=2)
    return np.where(shares.max(axis=2) > _SHARE, shares.argmax(axis=2) + 1, 0).astype(np.uint8)


def _toon_head(portrait: Portrait) -> dict[str, Any]:
    return {
        "skinColor": portrait.skin,
        "hairColor": portrait.hair,
        "clothesColor": portrait.clothes,
        "backgroundColor": portrait.background,
        "hairVariant": ["sideComed"] if portrait.long else ["sideComed", "spiky", "undercut"],
        "rearHairProbability": 100 * portrait.long,
        "rearHairVariant": ["longStraight", "longWavy", "shoulderHigh"],
        "beardProbability": 100 * portrait.beard,
        "beardVariant": ["fullBeard", "longBeard"],
        "clothesVariant": ["openJacket", "shirt", "tShirt", "turtleNeck"],
        "mouthVariant": {"smile": "laugh", "sad": "sad", "open": "agape"}[portrait.mouth],
        "eyesVariant": ["wink"] if portrait.wink else ["happy", "wide"],
    }


def _personas(portrait: Portrait) -> dict[str, Any]:
    long, short = ["long", "extraLong", "bobCut", "bobBangs"], ["shortCombover", "shortComboverChops"]
    return {
        "skinColor": portrait.skin,
        "hairColor": portrait.hair,
        "facialHairColor": portrait.hair,
        "clothingColor": portrait.clothes,
        "backgroundColor": portrait.background,
        # Other cuts bring colours of their own.
        "hairVariant": long if portrait.long else short,
        "facialHairProbability": 100 * portrait.beard,
        "facialHairVariant": ["beardMustache", "goatee"],
        "clothesVariant": ["rounded", "squared"],
        "mouthVariant": {"smile": "bigSmile", "sad": "frown", "open": "surprise"}[portrait.mouth],
        "eyesVariant": "wink" if portrait.wink else "open",
        "noseVariant": ["mediumRound", "smallRound"],
    }


@cache
def _style(name: str) -> "Style":
    from dicebear import Style

    return Style(json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text(encoding="utf-8")))


def _hex(*channels: float) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
