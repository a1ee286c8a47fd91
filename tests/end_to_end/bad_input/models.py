"""Wrong models, runs and weights, and wrong images to translate."""

import contextlib
import fcntl
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bad_input.data import png
from bad_input.project import POINTS_MODEL, noise
from bad_input.row import Row, both, cut_short, edited, nothing, removed, written
from rdmd import config
from rdmd.networks.build import build_denoiser, save_weights
from rdmd.pipeline.jobs import plan_generators, plan_teacher
from rdmd.pipeline.layout import Layout
from rdmd.training.run_folder import RunFolder

MODEL = "models/generators/lambda-0.1"
TRANSLATE = f"rdmd translate {MODEL}"
IMAGE, IMAGES = "data/raw/source/00.png", "data/raw/source"
TEACHER = "models/teacher"
# A run that fails leaves its folder, from which it can be inspected and gone on with.
RUN = ("runs", "runs/*/run.json", "runs/*/log.txt", "runs/*/error.txt", "runs/*")

# --- a model to translate with ------------------------------------------------------------------------------


def of_another_width() -> None:
    """Whole weights under a right hash, beside a card that describes another network."""
    card = Path(MODEL) / "model.json"
    card.write_text(card.read_text().replace('"model_channels": 8', '"model_channels": 16'))


SOURCES = [
    Row(
        "no such model",
        nothing,
        f"rdmd translate models/nowhere {IMAGE} out.png",
        "models/nowhere does not exist",
        "give a model's folder",
    ),
    Row(
        "an image for a model",
        nothing,
        f"rdmd translate {IMAGE} {IMAGE} out.png",
        f"{IMAGE}/model.json",
        "give a folder such as models/generators",
    ),
    Row(
        "a folder that is no model",
        nothing,
        f"rdmd translate data {IMAGE} out.png",
        "data is not a model",
        "give a folder such as models/generators",
    ),
    Row(
        "a teacher",
        nothing,
        f"rdmd translate {TEACHER} {IMAGE} out.png",
        "models/teacher holds a teacher",
        "give a generator",
    ),
    Row(
        "weights altered",
        written(f"{MODEL}/model.safetensors", "?"),
        f"{TRANSLATE} {IMAGE} out.png",
        f"{MODEL}/model.safetensors is not the file",
        "copy the model again",
    ),
    Row(
        "weights missing",
        removed(f"{MODEL}/model.safetensors"),
        f"{TRANSLATE} {IMAGE} out.png",
        f"{MODEL}/model.safetensors is missing",
        "train it again",
    ),
    Row(
        "weights that do not fit",
        of_another_width,
        f"{TRANSLATE} {IMAGE} out.png",
        f"{MODEL}/model.safetensors: tensor `",
        "set `network`",
    ),
    Row(
        "a card cut short",
        cut_short(f"{MODEL}/model.json"),
        f"{TRANSLATE} {IMAGE} out.png",
        f"{MODEL}/model.json is not a model card",
        "train it again",
    ),
]

# --- what to translate, and where to ------------------------------------------------------------------------


def one_broken() -> None:
    """Three images to translate, of which the middle one is none."""
    for name, content in (("a", png(noise(1))), ("b", b"no image"), ("c", png(noise(2, 12, 20)))):
        written(f"in/{name}.png", content)()


def saved_points(value: object) -> Callable[[], None]:
    """A .npy file."""
    file = io.BytesIO()
    np.save(file, value)
    return written("in.npy", file.getvalue())


def archive_of_points() -> None:
    """What `numpy.savez` makes, under the name of what `numpy.save` makes."""
    with Path("in.npy").open("wb") as file:
        np.savez(file, np.zeros((3, 2)))


IMAGES_GIVEN = [
    Row("no input", nothing, f"{TRANSLATE} nowhere.png out.png", "nowhere.png does not exist", "give an image"),
    Row(
        "an input that is no image",
        written("in.png", "?"),
        f"{TRANSLATE} in.png out.png",
        "in.png is not a readable image",
        "give a jpg, png",
    ),
    Row(
        "the input as output",
        nothing,
        f"{TRANSLATE} {IMAGE} {IMAGE}",
        f"{IMAGE} is the input itself",
        "give another place",
    ),
    Row(
        "the input's folder as output",
        nothing,
        f"{TRANSLATE} {IMAGE} {IMAGES}",
        f"{IMAGE} is the input itself",
        "give another place",
    ),
    Row(
        "an output with a strange ending",
        nothing,
        f"{TRANSLATE} {IMAGE} out.docx",
        "out.docx is not the name of an image file",
        "use .png",
    ),
    Row(
        "a file for the output's folder",
        written("out", "kept"),
        f"{TRANSLATE} {IMAGES} out",
        "out is a file",
        "give a folder",
    ),
    Row(
        "a file above the output",
        written("out", "kept"),
        f"{TRANSLATE} {IMAGE} out/a/b.png",
        "out",
        "a file lies where a folder belongs",
    ),
    Row(
        "an empty folder",
        lambda: Path("in").mkdir(),
        f"{TRANSLATE} in out",
        "in holds no images",
        "give another folder",
    ),
    Row(
        "one broken image among good ones",
        one_broken,
        f"{TRANSLATE} in out",
        "1 of 3 images in in could not be read",
        "mend or remove them; 2 are in out",
        ("out", "out/a.png", "out/c.png"),
    ),
    Row(
        "images for a model of points",
        nothing,
        f"rdmd translate {POINTS_MODEL} {IMAGE} out.npy",
        f"{IMAGE} is not a .npy file",
        "numpy.save",
    ),
    Row(
        "a folder for a model of points",
        nothing,
        f"rdmd translate {POINTS_MODEL} {IMAGES} out.npy",
        f"{IMAGES} is not a .npy file",
        "numpy.save",
    ),
    Row(
        "points in three dimensions",
        saved_points(np.zeros((4, 3))),
        f"rdmd translate {POINTS_MODEL} in.npy out.npy",
        "in.npy is not a .npy file of finite numbers of shape (N, 2)",
        "numpy.save",
    ),
    Row(
        "points that are words",
        saved_points([["a", "b"]]),
        f"rdmd translate {POINTS_MODEL} in.npy out.npy",
        "in.npy is not a .npy file of finite numbers",
        "numpy.save",
    ),
    Row(
        "points that are not numbers",
        saved_points([[np.nan, 0]]),
        f"rdmd translate {POINTS_MODEL} in.npy out.npy",
        "in.npy is not a .npy file of finite numbers",
        "numpy.save",
    ),
    Row(
        "points in an npz",
        archive_of_points,
        f"rdmd translate {POINTS_MODEL} in.npy out.npy",
        "in.npy is not a .npy file of finite numbers",
        "numpy.save",
    ),
]

# --- weights to begin with, and models between the stages ---------------------------------------------------

INIT = "data/raw/init.safetensors"


def wider() -> None:
    """Whole weights of a network of twice the width."""
    network = config.load().network.model_copy(update={"model_channels": 16})
    save_weights(build_denoiser(network, (3, 8, 8)), Path(INIT))


def begun_from(*steps: Callable[[], object]) -> Callable[[], None]:
    """A teacher that starts from weights."""
    return both(edited("init: null", f"init: {INIT}"), *steps)


STAGES = [
    Row(
        "no initial weights",
        begun_from(),
        "rdmd train-teacher",
        f"params.yaml: teacher.init is {INIT}",
        "or null to train from scratch",
    ),
    Row(
        "initial weights that are none",
        begun_from(written(INIT, "?")),
        "rdmd train-teacher",
        f"{INIT} is not a whole safetensors file",
        "`rdmd convert-edm`",
        RUN,
    ),
    Row(
        "initial weights that do not fit",
        begun_from(wider),
        "rdmd train-teacher",
        f"{INIT}: tensor `",
        "set `network` in params.yaml",
        RUN,
    ),
    Row("no teacher", removed(TEACHER), "rdmd distill", "models/teacher/model.json does not exist", "`dvc repro`"),
    Row(
        "a teacher altered",
        written(f"{TEACHER}/model.safetensors", "?"),
        "rdmd distill",
        "models/teacher/model.safetensors is not the file",
        "train it again",
    ),
    Row(
        "a teacher of another network",
        edited("model_channels: 8", "model_channels: 16"),
        "rdmd distill",
        "models/teacher holds another network",
        "`rdmd train-teacher`",
    ),
    Row(
        "no feature network for the cost",
        both(
            edited("lambdas: [0.1]", "lambdas: [0.1]\n  cost: {name: features, weights: apart}"), written("apart/a", "")
        ),
        "rdmd distill",
        "apart/features.json cannot be read",
        "`rdmd features`",
    ),
    Row(
        "no generators",
        removed("models/generators"),
        "rdmd evaluate",
        "models/generators holds no generator",
        "`rdmd distill`",
        adds=(".cache*",),
    ),  # features of the references, which were taken before
    Row(
        "no feature network",
        removed("models/features"),
        "rdmd evaluate",
        "models/features/features.json",
        "`rdmd features`",
    ),
    Row(
        "a feature network altered",
        cut_short("models/features/model.safetensors"),
        "rdmd evaluate",
        "models/features",
        "`rdmd features`",
    ),
    Row(
        "no InceptionV3",
        edited("{network: classifier, dim: 8, steps: 2, batch: 8}", "{network: inception, weights: data/raw/none.pth}"),
        "rdmd evaluate",
        "data/raw/none.pth cannot be read",
        "evaluate.features.weights",
    ),
    Row(
        "an image for a pickle",
        nothing,
        f"rdmd convert-edm {IMAGE} out.safetensors",
        f"{IMAGE} is not a published EDM network",
        "download it again or name another",
    ),
    Row(
        "no pickle",
        nothing,
        "rdmd convert-edm nowhere.pkl out.safetensors",
        "nowhere.pkl is not a file",
        "name a published EDM network",
    ),
]

# --- runs ---------------------------------------------------------------------------------------------------


def teacher_run() -> RunFolder:
    """The folder of the run that `rdmd train-teacher` would make or resume."""
    return RunFolder.prepare(Layout().runs, plan_teacher(config.load(), Layout()))


def in_run(name: str, content: str) -> Callable[[], None]:
    """A file that an earlier attempt left in the teacher's run."""
    return lambda: written(str(teacher_run().path / name), content)()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """The teacher's run, trained by another process."""
    with (teacher_run().path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unfinished() -> None:
    """The run of a generator that has only been planned, under a name that rows can give."""
    folder = RunFolder.prepare(Layout().runs, plan_generators(config.load(), Layout())[0])
    folder.path.rename("runs/begun")


def only_a_teacher() -> None:
    """The teacher's run, planned, under a name that rows can give."""
    teacher_run().path.rename("runs/teacher")


RUNS = [
    Row(
        "a run that is not finished",
        unfinished,
        f"rdmd translate runs/begun {IMAGE} out.png",
        "runs/begun is not finished",
        "repeat `dvc repro`",
    ),
    Row(
        "a run of a teacher",
        only_a_teacher,
        f"rdmd translate runs/teacher {IMAGE} out.png",
        "runs/teacher is not finished",
        "give another model",
    ),
    Row(
        "a run that is damaged",
        both(unfinished, cut_short("runs/begun/run.json")),
        f"rdmd translate runs/begun {IMAGE} out.png",
        "runs/begun holds a run.json",
        "repeat `dvc repro`",
    ),
    Row(
        "a checkpoint damaged",
        in_run("checkpoint.pt", "?"),
        "rdmd train-teacher",
        "checkpoint.pt cannot be resumed from",
        "delete it and repeat",
        ("runs/*/log.txt", "runs/*/error.txt", "runs/*/lock"),
    ),
    Row("a result damaged", in_run("result.json", "{"), "rdmd train-teacher", "result.json is damaged", "delete runs/"),
    Row(
        "curves damaged", in_run("curves.jsonl", "{\n"), "rdmd train-teacher", "curves.jsonl is damaged", "delete runs/"
    ),
    Row(
        "a run that another process holds",
        held,
        "rdmd train-teacher",
        "is being trained by another process",
        "wait for it or stop it",
        (
            "runs/*/log.txt",
            "runs/*/error.txt",
        ),
    ),
    Row(
        "a batch beyond all memory",
        edited("batch: 4\n  lr", "batch: 10000000000000\n  lr"),
        "rdmd train-teacher",
        "needs more memory than there is",
        "lower `batch`",
        RUN,
        apart=True,
    ),
    Row(
        "a loss without end",
        edited("lr: 0.001", "lr: 1e30\n  warmup: 0"),
        "rdmd train-teacher",
        "loss is not finite (largest error at sigma",
        "lower the learning rates",
        RUN,
    ),
]

ROWS = [*SOURCES, *IMAGES_GIVEN, *STAGES, *RUNS]
