"""Portraits: the draws, the pairs of the test split, and the maps of known colour."""

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from pydantic import ValidationError

from rdmd import config
from rdmd.config import Avatars, Domains
from rdmd.data.preprocess import preprocess
from rdmd.data.readers import avatars
from rdmd.data.samples import REGIONS, Sample
from rdmd.data.shards import read_split
from rdmd.evaluation.paired import counterparts

ROOT = Path(__file__).parents[2]
READER = ROOT / "rdmd" / "data" / "readers" / "avatars.py"
STYLES = ("toon-head", "personas")
ABOUT = ("skin", "hair", "clothes", "background", "long", "beard", "mouth", "wink")


def domain(style: str, **changes: object) -> Avatars:
    return Avatars.model_validate(
        {"reader": "avatars", "path": READER, "style": style, "train": 30, "test": 12} | changes
    )


def read(style: str, name: str, seed: int = 0) -> list[Sample]:
    return list(avatars.read(domain(style), 24, name, seed).items)


def facts(samples: list[Sample], split: str) -> list[tuple]:
    return [tuple(sample.facts[key] for key in ABOUT) for sample in samples if sample.split == split]


def test_equal_seeds_give_equal_images_and_others_differ():
    first, again, other = read("personas", "target"), read("personas", "target"), read("personas", "target", seed=1)
    assert all(np.array_equal(x.array, y.array) and x.facts == y.facts for x, y in zip(first, again, strict=True))
    assert not any(np.array_equal(x.array, y.array) for x, y in zip(first, other, strict=True))


def test_domains_share_their_test_portraits_and_no_training_portrait():
    source, target = read("toon-head", "source"), read("personas", "target")
    assert facts(source, "test") == facts(target, "test")
    training = facts(source, "train"), facts(target, "train")
    assert not set(training[0]) & set(training[1])
    assert not set(facts(source, "test")) & {*training[0], *training[1]}
    assert all("pair" not in sample.facts for sample in source if sample.split == "train")


def test_draws_cover_every_value_and_colours_are_valid():
    portraits = [avatars.draw(rng) for rng in [Random(0)] for _ in range(2000)]
    for name in REGIONS:
        assert all(len(getattr(one, name)) == 7 and int(getattr(one, name)[1:], 16) >= 0 for one in portraits)
    shares = {name: np.mean([getattr(one, name) for one in portraits]) for name in ("long", "beard", "wink")}
    # Four standard errors of a share of 2000 draws are 0.045 at most.
    assert shares == pytest.approx({"long": 0.5, "beard": 0.3, "wink": 0.2}, abs=0.045)
    assert {one.mouth for one in portraits} == {"smile", "sad", "open"}
    assert {one.hair for one in portraits} == set(avatars._HAIRS)


@pytest.mark.parametrize("style", STYLES)
def test_a_region_changes_with_its_colour_and_with_no_other(style: str):
    portrait = avatars.Portrait("#a5785f", "#724133", "#33c8cc", "#ceedc0", True, True, "smile", False)
    regions, before = avatars.regions(portrait, style, "x", 32), avatars.render(portrait, style, "x", 32).astype(int)
    for number, name in enumerate(REGIONS, 1):
        changed = avatars.render(replace(portrait, **{name: "#0000ff"}), style, "x", 32).astype(int)
        change = np.abs(changed - before).max(axis=2)
        assert (regions == number).sum() > 10
        # More than half of such a pixel takes the new colour, of which one channel changes by 80 or more.
        assert change[regions == number].min() > 30
        # Elsewhere half of it does at most, of a change of at most 255; the rest is rounding.
        assert change[regions != number].max() <= 130


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("change", [{"beard": True}, {"mouth": "open"}, {"wink": True}, {"long": True}])
def test_every_fact_can_be_seen(style: str, change: dict):
    plain = avatars.Portrait("#a5785f", "#724133", "#33c8cc", "#ceedc0", False, False, "smile", False)
    images = [avatars.render(one, style, "x", 24).astype(int) for one in (plain, replace(plain, **change))]
    # A wink in Personas is the faintest: a line of half a pixel.
    assert np.abs(images[0] - images[1]).max() > 15


def test_shards_keep_facts_regions_and_pairs(tmp_path: Path):
    settings = config.load(ROOT / "experiments" / "avatars.yaml")
    domains = Domains(source=domain("toon-head"), target=domain("personas"))
    settings = settings.model_copy(update={"domains": domains})
    for name in ("source", "target"):
        manifest = preprocess(settings, name, tmp_path / name)
        assert manifest.counts == {"train": 30, "test": 12}
    source, target = (read_split(tmp_path / name, "test") for name in ("source", "target"))
    assert counterparts(source.known(), target.known()) == list(range(12))
    assert target.known().regions.shape == (12, 24, 24)
    assert [one["pair"] for one in target.known().facts] == list(range(12))
    train = read_split(tmp_path / "target", "train").known()
    assert train.regions is None and set(train.facts[0]) == set(ABOUT)


def test_an_unknown_style_is_named():
    with pytest.raises(ValidationError, match=r"style[\s\S]*'toon-head' or 'personas'"):
        domain("lorelei")


def test_the_target_needs_a_counterpart_for_every_source():
    with pytest.raises(ValidationError, match=r"domains\.source\.test is 20 but domains\.target\.test is 12"):
        Domains(source=domain("toon-head", test=20), target=domain("personas"))
