"""Great Expectations, run for real on real shards: what is sound passes, and each planted fault is named."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rdmd import config
from rdmd.config import Digits, Domains, Points, Preprocess, Settings, Validation
from rdmd.data.expectations import ValidationReport, few_images, validate
from rdmd.data.manifest import Manifest, digest_of, write_manifest
from rdmd.data.preprocess import preprocess
from rdmd.data.shards import Entry, write_shards
from rdmd.data.splits import content_digest
from rdmd.errors import UserError
from rdmd.pipeline.features import refusal, train_features
from rdmd.pipeline.layout import Layout

ROOT = Path(__file__).parents[2]

Entries = list[Entry]


def image(seed: int, name: str, split: str, label: int, side: int = 8) -> Entry:
    array = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return Entry(name, split, array, content_digest(array), label)


@pytest.fixture
def sound() -> dict[str, Entries]:
    """Two small domains without a fault."""
    return {
        "source": [image(i, f"two/{i}.png", "train" if i < 8 else "test", 2) for i in range(12)],
        "target": [image(100 + i, f"three/{i}.png", "train" if i < 8 else "test", 3) for i in range(12)],
    }


@pytest.fixture
def settings() -> Settings:
    def digits(label: int) -> Digits:
        return Digits(reader="mnist", path=Path("data/raw/mnist"), classes=[label])

    return config.load(ROOT / "experiments" / "digits.yaml").model_copy(
        update={
            "domains": Domains(source=digits(2), target=digits(3)),
            "preprocess": Preprocess(kind="images", resolution=8),
            "validation": Validation(min_train=8, min_test=4),
        }
    )


def store(folder: Path, name: str, entries: Entries, settings: Settings) -> None:
    """Real shards of these entries, under a manifest that says what `settings` ask for."""
    (folder / name).mkdir(parents=True)
    written = write_shards(folder / name, entries, 5)
    points = settings.preprocess.kind == "points"
    manifest = Manifest(
        domain=name,
        kind=settings.preprocess.kind,
        resolution=None if points else 8,
        channels=None if points else 3,
        seed=0,
        reader={},
        preprocess={},
        counts=written.counts,
        label_counts=written.label_counts,
        shards=written.shards,
        samples_sha256=written.samples_sha256,
        broken=(),
        duplicates=(),
        digest=digest_of(written.shards),
    )
    write_manifest(folder / name, manifest)


def run(tmp_path: Path, settings: Settings, domains: dict[str, Entries]) -> ValidationReport:
    for name, entries in domains.items():
        store(tmp_path / "shards", name, entries, settings)
    return validate(settings, tmp_path / "shards", tmp_path / "validation.json", tmp_path / "docs")


def constant(domains: dict[str, Entries]) -> None:
    grey = np.full((8, 8, 3), 77, np.uint8)
    domains["target"][3] = replace(domains["target"][3], array=grey, scan=content_digest(grey))


def wrong_shape(domains: dict[str, Entries]) -> None:
    domains["source"][5] = image(5, "two/5.png", "train", 2, side=9)


def wrong_type(domains: dict[str, Entries]) -> None:
    entry = domains["source"][5]
    domains["source"][5] = replace(entry, array=entry.array.astype(np.int16))


def wrong_range(domains: dict[str, Entries]) -> None:
    entry = domains["source"][5]
    domains["source"][5] = replace(entry, array=entry.array.astype(np.int16) - 300)


def wrong_label(domains: dict[str, Entries]) -> None:
    domains["source"][2] = replace(domains["source"][2], label=9)


def too_few(domains: dict[str, Entries]) -> None:
    del domains["target"][9:]


def none_at_all_in_test(domains: dict[str, Entries]) -> None:
    del domains["target"][8:]


def twice_in_a_split(domains: dict[str, Entries]) -> None:
    domains["source"][1] = replace(domains["source"][0], name="two/again.png")


def in_train_and_test(domains: dict[str, Entries]) -> None:
    domains["source"][11] = replace(domains["source"][0], name="two/leak.png", split="test")


def same_scan_in_another_hue(domains: dict[str, Entries]) -> None:
    domains["source"][11] = replace(domains["source"][11], name="two/leak.png", scan=domains["source"][0].scan)


def in_both_domains(domains: dict[str, Entries]) -> None:
    entry = domains["source"][4]
    domains["target"][4] = replace(entry, name="three/stray.png", label=3)


@pytest.mark.parametrize(
    ("plant", "expectation", "sample"),
    [
        (
            constant,
            "target domain has no image of a single colour",
            r"three/3\.png \(train-00000003\) has std 0",
        ),
        (wrong_shape, "source domain has samples of one shape", r"two/5\.png .* has shape 9x9x3"),
        (wrong_type, "source domain has samples of one type", r"two/5\.png .* has dtype int16"),
        (wrong_range, "source domain has samples of one type", r"two/5\.png"),
        (wrong_label, "source domain has no label outside", r"two/2\.png .* has label 9"),
        (too_few, "target domain has at least 4 test samples", "but it has 1; lower validation.min_test"),
        (none_at_all_in_test, "target domain has at least 4 test samples", "but it has 0"),
        (twice_in_a_split, "source domain holds no sample twice", r"two/0\.png .*two/again\.png"),
        (
            in_train_and_test,
            "source domain shares no sample between train and test",
            r"two/0\.png .* equals two/leak\.png \(source test-00000003\)",
        ),
        (
            same_scan_in_another_hue,
            "source domain shares no sample between train and test",
            r"two/leak\.png .* equals two/0\.png \(source train-00000000\)",
        ),
        (
            in_both_domains,
            "source domain shares no sample with the domain",
            r"two/4\.png \(train-00000004\) equals three/stray\.png \(target train-00000004\)",
        ),
    ],
)
def test_a_planted_fault_is_named(tmp_path, settings, sound, plant, expectation, sample):
    plant(sound)
    with pytest.raises(UserError) as caught:
        run(tmp_path, settings, sound)
    assert re.search(f"{expectation}.*{sample}", str(caught.value)), caught.value
    report = json.loads((tmp_path / "validation.json").read_text())
    assert report["success"] is False


def test_sound_domains_pass(tmp_path, settings, sound):
    result = run(tmp_path, settings, sound)
    assert result.success and all(outcome.success for outcome in result.outcomes)
    report = json.loads((tmp_path / "validation.json").read_text())
    assert report["success"] is True
    assert (report["domains"]["source"]["train"], report["domains"]["source"]["test"]) == (8, 4)


def test_a_range_is_checked_whatever_the_type(tmp_path, settings, sound):
    wrong_range(sound)
    with pytest.raises(UserError):
        run(tmp_path, settings, sound)
    report = json.loads((tmp_path / "validation.json").read_text())
    failed = {(o["domain"], o["title"]): o["samples"] for o in report["outcomes"] if not o["success"]}
    below = failed["source", "has no value below the range"]
    assert [sample["name"] for sample in below] == ["two/5.png"] and float(below[0]["value"]) < 0


def test_the_feature_domain_may_hold_the_same_scans_but_not_across_the_split(tmp_path, settings, sound):
    domains = settings.domains.model_copy(
        update={"features": Digits(reader="mnist", path=Path("data/raw/mnist"), classes=[2, 3])}
    )
    settings = settings.model_copy(update={"domains": domains})
    sound["features"] = [*sound["source"], *sound["target"]]
    assert run(tmp_path / "a", settings, sound).success
    sound["features"][11] = replace(sound["features"][11], split="train")
    with pytest.raises(UserError, match=r"source domain shares no sample.*two/11\.png .* \(features train-\d+\)"):
        run(tmp_path / "b", settings, sound)


def test_the_report_is_the_same_on_every_run(tmp_path, settings, sound):
    run(tmp_path / "a", settings, sound)
    run(tmp_path / "b", settings, sound)
    assert (tmp_path / "a/validation.json").read_bytes() == (tmp_path / "b/validation.json").read_bytes()


def test_the_data_docs_say_what_failed(tmp_path, settings, sound):
    constant(sound)
    with pytest.raises(UserError):
        run(tmp_path, settings, sound)
    docs = tmp_path / "docs"
    assert (docs / "index.html").is_file()
    (page,) = (docs / "validations" / "target").rglob("*.html")
    assert "three/3.png" in page.read_text()
    assert "The domain has no image of a single colour." in (docs / "expectations" / "target.html").read_text()


@pytest.fixture
def plane(settings: Settings) -> Settings:
    domains = Domains(
        source=Points(reader="points", path=Path("p"), law="gaussian", train=40, test=20),
        target=Points(reader="points", path=Path("p"), law="swissroll", train=40, test=20),
    )
    return settings.model_copy(update={"domains": domains, "preprocess": Preprocess(kind="points")})


def test_points_pass(tmp_path, plane):
    for name in ("source", "target"):
        preprocess(plane, name, tmp_path / "shards" / name)
    assert validate(plane, tmp_path / "shards", tmp_path / "validation.json", tmp_path / "docs").success


@pytest.mark.parametrize(
    ("value", "problem"), [(np.inf, "no value above the range"), (np.nan, "no sample that is not a number")]
)
def test_points_that_are_not_finite_are_named(tmp_path, plane, value, problem):
    rng = np.random.default_rng(0)

    def cloud(name: str) -> Entries:
        drawn = rng.standard_normal((12, 2)).astype(np.float32)
        return [
            Entry(f"{name}[{i}]", "train" if i < 8 else "test", point, content_digest(point))
            for i, point in enumerate(drawn)
        ]

    domains = {"source": cloud("source"), "target": cloud("target")}
    bad = np.array([value, 0], np.float32)
    domains["target"][6] = Entry("target[6]", "train", bad, content_digest(bad))
    with pytest.raises(UserError, match=rf"target domain has {problem}.*target\[6\]"):
        run(tmp_path, plane, domains)


def test_few_images_bring_a_warning_and_stop_nothing(tmp_path: Path, settings: Settings, sound: dict[str, Entries]):
    layout = Layout(tmp_path)
    for name, entries in sound.items():
        # Three test images are too few for the check of a feature network.
        store(layout.shards, name, entries[:11], settings)
    few = settings.model_copy(update={"validation": Validation(min_train=8, min_test=3)})
    report = validate(few, layout.shards, tmp_path / "validation.json", tmp_path / "docs")
    warning = few_images(report, few)
    assert warning is not None
    assert warning.startswith("FEW IMAGES: source has 8 training images and target has 8 training images.")
    many = {name: replace(counts, train=300) for name, counts in report.domains.items()}
    assert few_images(replace(report, domains=many), few) is None

    classifier = few.evaluate.features.model_copy(update={"steps": 2, "dim": 8, "batch": 4})
    few = few.model_copy(update={"evaluate": few.evaluate.model_copy(update={"features": classifier})})
    assert "needs 4 test images of the target, not 3" in train_features(few, layout)
    assert refusal(few, layout) is None
