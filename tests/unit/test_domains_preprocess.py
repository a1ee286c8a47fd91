"""From folders to shards: which images are kept, where they go, and what a user is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdmd import config
from rdmd.config import Domains, ImageFolder, Preprocess, Settings
from rdmd.data.manifest import describe
from rdmd.data.preprocess import preprocess
from rdmd.data.shards import read_rows, read_split
from rdmd.data.transforms import fit
from rdmd.errors import UserError

ROOT = Path(__file__).parents[2]


def images(folder: Path, seed: int, count: int, size: tuple[int, int] = (24, 20)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")


@pytest.fixture
def two_folders(tmp_path: Path) -> Settings:
    images(tmp_path / "cats", 1, 40)
    images(tmp_path / "dogs", 2, 30)
    settings = config.load(ROOT / "experiments" / "folder.yaml")
    return settings.model_copy(
        update={
            "domains": Domains(
                source=ImageFolder(reader="images", path=tmp_path / "cats"),
                target=ImageFolder(reader="images", path=tmp_path / "dogs"),
            ),
            "preprocess": Preprocess(kind="images", resolution=16, test_fraction=0.3, max_broken_fraction=0.05),
        }
    )


def test_one_broken_image_stops_no_small_folder_but_two_do(tmp_path, two_folders):
    (tmp_path / "dogs" / "000.png").write_bytes(b"nothing")
    few = two_folders.model_copy(
        update={"preprocess": two_folders.preprocess.model_copy(update={"max_broken_fraction": 0.02})}
    )
    assert [one.name for one in preprocess(few, "target", tmp_path / "shards").broken] == ["000.png"]
    none = few.model_copy(update={"preprocess": few.preprocess.model_copy(update={"max_broken_fraction": 0.0})})
    with pytest.raises(UserError, match="1 of 30 images"):
        preprocess(none, "target", tmp_path / "shards")
    (tmp_path / "dogs" / "001.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="2 of 30 images"):
        preprocess(few, "target", tmp_path / "shards")


def digits() -> Settings:
    return config.load(ROOT / "experiments" / "digits.yaml")


def split_by_name(folder: Path, manifest) -> dict[str, str]:
    return {row.name: row.split for row in read_rows(folder, manifest)}


def test_a_scan_lands_in_one_split_in_every_domain(tmp_path):
    settings = digits()
    once = {"train_copies": 1, "test_copies": 1}
    names = ("source", "target", "features")
    domains = {name: getattr(settings.domains, name).model_copy(update=once) for name in names}
    settings = settings.model_copy(update={"domains": Domains(**domains)})
    sides = {}
    for name in ("source", "target", "features"):
        sides[name] = split_by_name(tmp_path / name, preprocess(settings, name, tmp_path / name))
    own = sides["source"] | sides["target"]
    assert not sides["source"].keys() & sides["target"].keys()
    assert own == {name: sides["features"][name] for name in own}
    assert set(own.values()) == {"train", "test"}


def test_the_copies_of_a_scan_stay_together_and_differ(tmp_path):
    preprocess(digits(), "source", tmp_path / "source")
    train, test = (read_split(tmp_path / "source", split) for split in ("train", "test"))
    assert not set(train.scans) & set(test.scans)
    assert len(train.data) == 16 * len(set(train.scans)) and len(test.data) == 24 * len(set(test.scans))
    assert len({image.numpy().tobytes() for image in test.data}) == len(test.data)


def test_renaming_moves_no_image_and_adding_moves_those_at_the_bound_alone(tmp_path, two_folders):
    before = preprocess(two_folders, "source", tmp_path / "a")
    assert before.counts == {"train": 28, "test": 12}
    sides = {row.scan: row.split for row in read_rows(tmp_path / "a", before)}
    cats = tmp_path / "cats"
    (cats / "000.png").rename(cats / "zzz.png")
    renamed = preprocess(two_folders, "source", tmp_path / "b")
    assert {row.scan: row.split for row in read_rows(tmp_path / "b", renamed)} == sides
    images(cats / "more", 3, 10)
    after = preprocess(two_folders, "source", tmp_path / "c")
    assert after.counts == {"train": 35, "test": 15}
    now = {row.scan: row.split for row in read_rows(tmp_path / "c", after)}
    moved = [scan for scan, side in sides.items() if now[scan] != side]
    assert len({now[scan] for scan in moved}) <= 1, "the bound moves one way"


def test_the_arrays_wait_in_the_order_of_their_names(tmp_path, two_folders):
    """Every stored image is the one of its name, whichever split it went to."""
    preprocess(two_folders, "source", tmp_path / "out")
    for split in ("train", "test"):
        stored = read_split(tmp_path / "out", split)
        for image, name in zip(stored.data, [row.name for row in stored.rows], strict=True):
            original = np.asarray(Image.open(tmp_path / "cats" / name))
            assert np.array_equal(image.permute(1, 2, 0).numpy(), fit(original, 16, "crop")), name


@pytest.mark.parametrize(("limit", "test"), [(40, 8), (3, 1), (2, 1), (1, 0)])
def test_a_small_limit_keeps_the_fraction(tmp_path, limit, test):
    settings = digits()
    source = settings.domains.source.model_copy(update={"limit": limit})
    few = settings.model_copy(update={"domains": settings.domains.model_copy(update={"source": source})})
    rows = {}
    for name, given in (("few", few), ("all", settings)):
        manifest = preprocess(given, "source", tmp_path / name)
        rows[name] = {row.scan: row.split for row in read_rows(tmp_path / name, manifest)}
    assert list(rows["few"].values()).count("test") == test and len(rows["few"]) == limit
    assert rows["few"].items() <= rows["all"].items(), "a limit moves no scan to the other split"


def test_exact_repetitions_are_left_out_and_named(tmp_path, two_folders):
    cats = tmp_path / "cats"
    # Another format and another name, the same pixels.
    Image.open(cats / "003.png").save(cats / "copy.bmp")
    manifest = preprocess(two_folders, "source", tmp_path / "out")
    assert [(d.name, d.same_as) for d in manifest.duplicates] == [("copy.bmp", "003.png")]
    assert sum(manifest.counts.values()) == 40


def test_broken_images_are_skipped_and_named_up_to_a_fraction(tmp_path, two_folders):
    cats = tmp_path / "cats"
    (cats / "x.jpg").write_bytes(b"no image")
    Image.new("RGB", (1, 1)).save(cats / "dot.png")
    manifest = preprocess(two_folders, "source", tmp_path / "out")
    assert [broken.name for broken in manifest.broken] == ["dot.png", "x.jpg"]
    assert "1x1 pixels" in manifest.broken[0].reason
    assert sum(manifest.counts.values()) == 40
    (cats / "y.jpg").write_bytes(b"")
    # 3 of 43 is above 0.05.
    with pytest.raises(UserError, match=r"3 of 43 images in .*cats cannot be used \(dot\.png: 1x1.*x\.jpg.*y\.jpg"):
        preprocess(two_folders, "source", tmp_path / "out")
    assert sum(read_split(tmp_path / "out", split).data.shape[0] for split in ("train", "test")) == 40


def test_images_of_all_sizes_become_one(tmp_path, two_folders):
    images(tmp_path / "cats/wide", 5, 3, (9, 100))
    preprocess(two_folders, "source", tmp_path / "out")
    assert read_split(tmp_path / "out", "train").data.shape[1:] == (3, 16, 16)


@pytest.mark.parametrize("size", [(20, 33), (33, 20)])
def test_random_crops_cover_the_longer_side_and_the_test_split_is_the_centre(tmp_path, two_folders, size):
    # Brightness tells the place along the longer side: 0 at its beginning and 250 at its end.
    ramp = np.linspace(0, 250, max(size)).astype(np.uint8)
    grey = np.broadcast_to(ramp if size[1] > size[0] else ramp[:, None], size)
    for index, path in enumerate(sorted((tmp_path / "cats").iterdir())):
        image = np.stack([grey] * 3, axis=2)
        image[0, 0, 0] = index
        Image.fromarray(image).save(path)
    how = two_folders.preprocess.model_copy(update={"fit": "random_crop", "crops": 4})
    settings = two_folders.model_copy(update={"preprocess": how})
    manifest = preprocess(settings, "source", tmp_path / "shards")
    assert manifest.counts == {"train": 4 * 28, "test": 12}
    assert preprocess(settings, "source", tmp_path / "again").digest == manifest.digest
    train, test = (read_split(tmp_path / "shards", split) for split in ("train", "test"))
    assert len(set(train.scans)) == 28 and not set(train.scans) & set(test.scans)
    places = train.data.float().mean(dim=(1, 2, 3)).reshape(28, 4)
    # A square holds 20 of 33 columns, so the means go from 75 to 175. Neighbours are 100 / 4 apart, give or take the
    # place of a column, which is 6.
    assert (places.diff(dim=1) - 25).abs().max() < 7
    assert places.min() < 80 and places.max() > 170
    # Thirteen columns are left out, so the centre is half a column from the middle.
    np.testing.assert_allclose(test.data.float().mean(dim=(1, 2, 3)), 125, atol=6)


def test_a_square_image_has_one_crop(tmp_path, two_folders):
    images(tmp_path / "cats", 3, 40, (20, 20))
    made = {}
    for how in ("crop", "random_crop"):
        chosen = two_folders.preprocess.model_copy(update={"fit": how})
        settings = two_folders.model_copy(update={"preprocess": chosen})
        made[how] = preprocess(settings, "source", tmp_path / how).digest
    assert made["crop"] == made["random_crop"]


def test_a_domain_that_is_not_there_is_explained(tmp_path, two_folders):
    with pytest.raises(UserError, match=r"no domains\.features"):
        preprocess(two_folders, "features", tmp_path / "out")


def test_files_of_other_kinds_are_counted(tmp_path, two_folders):
    for name in ("a.heic", "b.HEIC", "c.svg", "README", ".hidden.heic"):
        (tmp_path / "cats" / name).write_bytes(b"x")
    manifest = preprocess(two_folders, "source", tmp_path / "out")
    assert manifest.others == {"HEIC": 2, "SVG": 1, "no suffix": 1}
    assert describe(manifest).endswith("left out: 2 HEIC, 1 SVG, 1 no suffix")
