"""The library: what a notebook does with `import rdmd`, and that it trains as the pipeline does."""

import base64
import doctest
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nbformat
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from huggingface_hub import ModelCard, constants
from nbclient import NotebookClient
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

import rdmd
from rdmd import cli, config, library, pretrained
from rdmd.data import in_memory
from rdmd.data.preprocess import preprocess
from rdmd.data.shards import stored_array
from rdmd.data.transforms import to_unit
from rdmd.evaluation.row import Row
from rdmd.evaluation.table import write_metrics
from rdmd.pipeline.jobs import plan_teacher
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.training import train_teacher
from rdmd.training.run_folder import RunFolder
from tests.conftest import ROOT, notebook_of
from tests.unit.test_evaluation_metrics_file import METRICS

SIDE = 8
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
FEW = {"steps": 3, "batch": 4, "progress": False, "device": "cpu"}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (12, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def teacher(images: Tensor) -> rdmd.Teacher:
    return rdmd.train_teacher(images, model_channels=8, **FEW)


@pytest.fixture(scope="module")
def translator(teacher: rdmd.Teacher, images: Tensor) -> rdmd.Translator:
    return rdmd.distill(teacher, images, lam=0.1, **FEW)


class Labelled(Dataset[tuple[Image.Image, int]]):
    """PIL images with labels, as the datasets of torchvision give them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index].permute(1, 2, 0).numpy()), 7


def test_the_examples_of_the_docstrings_hold():
    for module in (library, pretrained, in_memory):
        found = doctest.testmod(module)
        assert found.attempted > 0
        assert found.failed == 0


def test_rdmd_and_its_command_line_are_imported_without_torch():
    code = "import sys, rdmd, rdmd.cli; rdmd.cli.parser(); print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "set()\n"
    assert set(rdmd.__all__) <= set(dir(rdmd))
    for name in rdmd.__all__:
        assert getattr(rdmd, name).__doc__


def test_every_form_of_the_same_images_trains_the_same_teacher(tmp_path: Path, images: Tensor, teacher: rdmd.Teacher):
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    same = {
        "folder": rdmd.ImageFolder(tmp_path, SIDE, progress=False),
        "channels last": images.permute(0, 2, 3, 1),
        "array": images.numpy(),
        "PIL images": [image for image, _ in (Labelled(images)[i] for i in range(len(images)))],
        "dataset": Labelled(images),
        "tensor dataset": TensorDataset(images),
    }
    for form, samples in same.items():
        assert torch.equal(in_memory.stored(samples), in_memory.stored(images)), form
    assert rdmd.train_teacher(Labelled(images), model_channels=8, **FEW).card.sha256 == teacher.card.sha256


def test_a_translation_has_the_form_of_its_source(translator: rdmd.Translator, images: Tensor):
    expected = translator(images)
    assert expected.dtype == torch.uint8
    assert expected.shape == images.shape
    assert not torch.equal(expected, images)
    samples = [Labelled(images)[i][0] for i in range(len(images))]
    last = images.permute(0, 2, 3, 1)
    assert torch.equal(translator(last), expected.permute(0, 2, 3, 1))
    assert np.array_equal(translator(last.numpy()), expected.permute(0, 2, 3, 1).numpy())
    assert torch.equal(translator(images[3]), expected[3])
    assert torch.equal(translator(Labelled(images)), expected)
    listed = translator(samples)
    assert [image.size for image in listed] == [(SIDE, SIDE)] * len(images)
    assert np.array_equal(np.stack([np.asarray(image) for image in listed]), expected.permute(0, 2, 3, 1).numpy())
    assert isinstance(translator(samples[0]), Image.Image)
    floats = translator(to_unit(images))
    assert floats.min() >= -1 and floats.max() <= 1
    # Half a level, for the rounding to uint8, and a little for the batches' order of sums.
    assert (floats - to_unit(expected)).abs().max() <= 0.502 / 127.5
    # An image of another size keeps it.
    assert translator(Image.new("RGB", (40, 30))).size == (40, 30)
    assert translator(images.repeat_interleave(3, dim=2)).shape == (*images.shape[:2], 3 * SIDE, SIDE)


def test_a_saved_translator_is_the_translator(tmp_path: Path, teacher: rdmd.Teacher, images: Tensor):
    images = torch.cat([images, images.flip(-1)])
    translator = rdmd.distill(teacher, images, lam=0.2, folder=tmp_path / "runs", **FEW)
    translator.save_pretrained(tmp_path / "saved")
    teacher.save_pretrained(tmp_path / "teacher")
    (run,) = (tmp_path / "runs").iterdir()
    for place in (tmp_path / "saved", run):
        again = rdmd.Translator.from_pretrained(place, device="cpu")
        assert again.card.lam == 0.2
        assert torch.equal(again(images), translator(images))
    # A folder stands for the teacher; the digest of its weights finds the finished run.
    same = rdmd.distill(tmp_path / "teacher", images, lam=0.2, folder=tmp_path / "runs", **FEW)
    assert same.card == translator.card
    assert [run] == list((tmp_path / "runs").iterdir())
    source = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    source.save(tmp_path / "in.png")
    with chdir(tmp_path), pytest.raises(SystemExit) as ended:
        cli.main(["translate", "saved", "in.png", "out.png"])
    assert ended.value.code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(translator(source)))


def test_the_library_trains_as_a_stage_of_the_pipeline_does(points_project: Path):
    settings, layout = config.load(), Layout()
    for name in ("source", "target"):
        preprocess(settings, name, layout.shards / name)
    staged = train_teacher(settings, layout, lambda *_: nullcontext(lambda points: None), TrainingProcesses()).result()
    assert staged is not None
    own = settings.teacher.model_dump(exclude={"sample_every"})
    points = torch.from_numpy(np.array(stored_array(layout.shards / "target", "train")))
    planned = plan_teacher(settings, layout)
    teacher = rdmd.train_teacher(
        points, network=planned.network, compute=planned.compute, seed=settings.seed, progress=False, **own
    )
    assert teacher.card.sha256 == staged.sha256


KILLED = """
import torch, rdmd
points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
rdmd.train_teacher(points, steps={steps}, checkpoint_every=10, device="cpu", progress=False, folder="runs")
"""


def test_a_killed_training_goes_on_from_its_checkpoint(tmp_path: Path):
    steps = 600
    child = subprocess.Popen([sys.executable, "-c", KILLED.format(steps=steps)], cwd=tmp_path, env=ENVIRONMENT)
    while not list(tmp_path.glob("runs/*/checkpoint.pt")):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (run,) = (tmp_path / "runs").iterdir()
    assert RunFolder(run).result() is None
    points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    common = {"steps": steps, "checkpoint_every": 10, "device": "cpu", "progress": False}
    resumed = rdmd.train_teacher(points, folder=tmp_path / "runs", **common)
    assert resumed.card.run == run.name
    assert resumed.card.sha256 == rdmd.train_teacher(points, **common).card.sha256


def test_training_leaves_the_state_of_the_process_alone(images: Tensor):
    # Another test file may have made one of another precision in this process.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rdmd.train_teacher(images, model_channels=8, **FEW)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    assert accelerator.mixed_precision == "bf16"
    # Another device and precision in the same process.
    rdmd.train_teacher(images, model_channels=8, precision="bf16", **FEW | {"device": "auto"})
    AcceleratorState._reset_state(reset_partial_state=True)


def test_trainings_are_evaluated_on_the_way(tmp_path: Path):
    """The teacher against its target, the generator against the target that it is given."""
    rng = torch.Generator().manual_seed(0)
    source, target = torch.randn(300, 2, generator=rng), torch.randn(300, 2, generator=rng) + 3
    given = {"steps": 6, "evaluate_every": 3, "evaluate_n": 100, "device": "cpu", "progress": False, "folder": tmp_path}
    teacher = rdmd.train_teacher(target, **given)
    with pytest.raises(rdmd.UserError, match=r"give its samples, of the shape .* as `target`"):
        rdmd.distill(teacher, source, **given)
    translator = rdmd.distill(teacher, source, target=target, lam=0.1, **given)
    for model, names in ((teacher, {"eval_sw2"}), (translator, {"eval_sw2", "eval_cost"})):
        evaluated = [point for point in RunFolder(tmp_path / model.card.run).curves() if "eval_sw2" in point.values]
        assert [point.step for point in evaluated] == [3, 6]
        assert {name for name in evaluated[0].values if name.startswith("eval_")} == names
    # The generator is compared with the target, which is 3 away in each coordinate, and not with its sources.
    assert evaluated[0].values["eval_sw2"] > 1


def test_evaluation_is_that_of_the_pipeline(images: Tensor):
    many = images.repeat(5, 1, 1, 1)
    scores = rdmd.evaluate(many, many, many, bootstrap=0, device="cpu")
    assert scores.cost == 0
    assert scores.fid is not None and abs(scores.fid) < 1e-3  # eigenvalues of equal covariances, in float64


def test_a_folder_leaves_out_what_is_no_image_and_says_so(tmp_path: Path):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match=r"1 of 2 images .* left out \(b\.png"):
        folder = rdmd.ImageFolder(tmp_path, SIDE, fit="pad", progress=False)
    assert len(folder) == 1
    # Padded with white above, red in the middle.
    assert folder[0][:, 0, 0].tolist() == [255, 255, 255]
    assert folder[0][:, SIDE // 2, SIDE // 2].tolist() == [255, 0, 0]
    # A generator that learned from padded images pads what it translates.
    assert rdmd.train_teacher(folder, model_channels=8, **FEW).card.fit == "pad"


WRONG = {
    "floats of 0 to 255": (lambda x: x.float(), {}, r"beyond \[-1, 1\]"),
    "whole numbers": (lambda x: x.long(), {}, "uint8"),
    "two channels": (lambda x: x[:, :2], {}, "2 channels"),
    "one image": (lambda x: x[0], {}, "shape"),
    "no image": (lambda x: x[:0], {}, "no samples"),
    "not square": (lambda x: x[..., :4], {}, "4x8"),
    "sizes that differ": (lambda x: [x[0], x[1][:, :4]], {}, "different shapes"),
    "not finite": (lambda x: x * torch.nan, {}, "not finite"),
    "an unknown setting": (lambda x: x, {"warm": 3}, "unknown key `warm`; did you mean `warmup`"),
    "a setting out of range": (lambda x: x, {"lr": -1}, "`lr` is -1"),
    "flipped points": (lambda x: torch.zeros(9, 2), {"flip": True}, "`flip` and `shift` vary images"),
    "augmented points": (lambda x: torch.zeros(9, 2), {"augment": 0.1}, "network 'mlp' takes no augmentation labels"),
}


def test_a_teacher_with_augmentation_is_distilled(images: Tensor):
    teacher = rdmd.train_teacher(images, model_channels=8, augment=0.2, **FEW)
    assert teacher.card.network.augment_dim == 9
    assert rdmd.distill(teacher, images, lam=0.1, **FEW)(images[:2]).shape == images[:2].shape


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_sentence(case: str, images: Tensor):
    change, settings, message = WRONG[case]
    with pytest.raises(rdmd.UserError, match=message):
        rdmd.train_teacher(change(images), **FEW | settings)


def test_models_that_do_not_fit_are_refused(tmp_path: Path, teacher: rdmd.Teacher, translator: rdmd.Translator):
    with pytest.raises(rdmd.UserError, match="one size"):
        rdmd.distill(teacher, torch.zeros(4, 3, 16, 16, dtype=torch.uint8), lam=0.1, **FEW)
    with pytest.raises(rdmd.UserError, match="may have any size"):
        translator(torch.zeros(4, 3, 16, 16))
    teacher.save_pretrained(tmp_path / "teacher")
    with pytest.raises(rdmd.UserError, match="not a generator"):
        rdmd.Translator.from_pretrained(tmp_path / "teacher")
    translator.save_pretrained(tmp_path / "translator")
    with pytest.raises(rdmd.UserError, match="not a teacher"):
        rdmd.Teacher.from_pretrained(tmp_path / "translator")


# test_wheel runs the code of the first.
@pytest.mark.slow
def test_the_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("quickstart", "choose_lambda"):
        notebook = notebook_of(name)
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("name", ["quickstart", "choose_lambda"])
def test_the_stored_outputs_are_images_and_no_errors(name: str):
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    # Small enough for the pages of a forge, which show it.
    assert (ROOT / "examples" / f"{name}.ipynb").stat().st_size < 500_000


class Hub(BaseHTTPRequestHandler):
    """The calls of Hugging Face's hub that an upload makes; `files` are those that were committed."""

    files: dict[str, bytes] = {}
    asked: list[str] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.path)
        if self.path == "/api/repos/create":
            self.answer(409 if b"taken" in body else 200, {"url": f"{Hub.address}/org/name", "name": "org/name"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self.answer(200, {"files": modes})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            self.files |= {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            self.answer(200, {"commitUrl": f"{Hub.address}/org/name/commit/1", "commitOid": "1", "success": True})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        else:
            self.answer(404, {})

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.answer(404, {})

    def answer(self, status: int, body: dict) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.address, Hub.files, Hub.asked = f"http://127.0.0.1:{server.server_port}", {}, []
    monkeypatch.setattr(constants, "ENDPOINT", Hub.address)
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    Thread(target=server.serve_forever, daemon=True).start()
    yield Hub
    server.shutdown()


def test_a_translator_is_pushed_with_its_scores(
    hub: type[Hub], tmp_path: Path, translator: rdmd.Translator, images: Tensor
):
    known = {"fid": 12.5, "fid_ci": (11.0, 14.0), "cost": 0.11, "cost_se": 0.001}
    rows = [Row(method="rdmd", lam=lam, run=translator.card.run, nfe=1, **known) for lam in (0.02, 0.5)]
    rows.append(Row(method="rdmd", lam=0.1, run="another", nfe=1, fid=99.0))
    write_metrics(METRICS.model_copy(update={"rows": rows}), tmp_path / "metrics.json")
    assert translator.push_to_hub("org/name", metrics=tmp_path / "metrics.json") == f"{hub.address}/org/name"
    for name, content in hub.files.items():
        (tmp_path / "pulled" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pulled" / name).write_bytes(content)
    again = rdmd.Translator.from_pretrained(tmp_path / "pulled", device="cpu")
    assert torch.equal(again(images), translator(images))
    card = ModelCard.load(tmp_path / "pulled" / "README.md")
    assert card.data.library_name == "diffusers" and card.data.pipeline_tag == "image-to-image"
    assert "| metric | lambda 0.02 | lambda 0.5 |" in card.text and "| `fid_ci` | 11 to 14 | 11 to 14 |" in card.text
    assert "512 translated samples" in card.text and "99" not in card.text.split("## Origin")[0]
    translator.push_to_hub("org/name", metrics=tmp_path / "none.json")
    assert b"Nothing was measured" in hub.files["README.md"]
    # The hub's own refusal, in a sentence.
    with pytest.raises(rdmd.UserError, match=r"org/no name cannot be written to the hub"):
        translator.push_to_hub("org/no name")
