"""The functions behind the `rdmd` commands, whose docstrings are the commands' help.

Each imports the heavy packages that it needs: `--help` stays quick.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rdmd import config
from rdmd.errors import UserError
from rdmd.pipeline import experiments as files
from rdmd.pipeline.experiments import NO_GIT, augmentation_advice, in_git, missing_files
from rdmd.pipeline.layout import Layout, use_local_tracking
from rdmd.ports import listen
from rdmd.progress import run_bar

if TYPE_CHECKING:
    from rdmd.training.run_config import TrainingRun
    from rdmd.training.run_folder import Point, RunFolder

LAYOUT = Layout()


def experiments(arguments: Namespace) -> None:
    """List the experiments.

    Each is a complete params file in experiments/; save yours there to list it too.
    """
    known = files.experiments()
    width = max(len(experiment.name) for experiment in known)
    current = config.PARAMS.read_bytes() if config.PARAMS.exists() else b""
    for experiment in known:
        mark = "*" if experiment.path.read_bytes() == current else " "
        print(f"{mark} {experiment.name:<{width}}  {experiment.summary}")


def use(arguments: Namespace) -> None:
    """Put an experiment into params.yaml.

    Refuses to overwrite edits that are neither committed nor saved as an experiment.
    """
    chosen = files.use(arguments.name, arguments.force)
    domains = config.load(chosen.path).domains.named
    missing = [f"domains.{name}.path" for name, domain in domains.items() if not domain.path.exists()]
    first = f"set {' and '.join(missing)} in params.yaml, then " if missing else ""
    print(f"params.yaml is now {chosen.path}. Next: {first}make repro (or: dvc repro).")


def check(arguments: Namespace) -> None:
    """Check params.yaml and the files that it names, in a second."""
    settings = config.load()
    problems = missing_files(settings)
    if not in_git():
        problems.append(NO_GIT)
    if problems:
        raise UserError(" ".join(problems))
    if (advice := augmentation_advice(settings)) is not None:
        print(advice)


def preprocess(arguments: Namespace) -> None:
    """Read the domains and write WebDataset shards.

    The shards lie in data/shards/DOMAIN; the same input gives the same bytes.
    """
    from rdmd.data.manifest import describe
    from rdmd.data.preprocess import preprocess as run

    settings = config.load()
    known = settings.domains.named
    for name in arguments.domain:
        if name not in known:
            raise UserError(f"params.yaml has no domain {name!r}; name one of {', '.join(known)}, or add it.")
    codec = None
    if settings.preprocess.codec is not None:
        # It imports torch, which takes seconds.
        from rdmd.networks.codec import encoder_for

        codec = encoder_for(settings)
    for name in arguments.domain or known:
        print(describe(run(settings, name, LAYOUT.shards / name, codec)))


def validate(arguments: Namespace) -> None:
    """Check the shards with Great Expectations.

    Writes reports/validation.json and the pages in reports/data_docs.
    """
    from rdmd.data.expectations import few_images
    from rdmd.data.expectations import validate as run

    settings = config.load()
    report = run(settings, LAYOUT.shards, LAYOUT.validation, LAYOUT.reports / "data_docs")
    samples = sum(counts.train + counts.test for counts in report.domains.values())
    print(
        f"{len(report.outcomes)} expectations hold on {samples} samples of {', '.join(report.domains)}; "
        f"the pages are {LAYOUT.reports / 'data_docs' / 'index.html'}"
    )
    if (warning := few_images(report, settings)) is not None:
        print(warning)


def features(arguments: Namespace) -> None:
    """Train the feature network of FID and KID.

    Writes models/features.
    """
    from rdmd.pipeline.features import train_features

    print(train_features(config.load(), LAYOUT))


def train_teacher(arguments: Namespace) -> None:
    """Train or fine-tune the diffusion teacher on the target.

    Resumes an unfinished run and reuses a finished one (runs/). Writes models/teacher.
    """
    from rdmd.pipeline import training
    from rdmd.pipeline.launch import TrainingProcesses

    folder = training.train_teacher(config.load(), LAYOUT, _bars, TrainingProcesses())
    print(f"{LAYOUT.teacher} is {folder.path}")


def distill(arguments: Namespace) -> None:
    """Distil a one-step generator for every lambda of params.yaml.

    Resumes unfinished runs and reuses finished ones (runs/). Writes models/generators.
    """
    from rdmd.pipeline import training
    from rdmd.pipeline.launch import TrainingProcesses

    settings = config.load()
    for folder in training.train_generators(settings, LAYOUT, _bars, TrainingProcesses()):
        print(f"{LAYOUT.generators} holds {folder.path}")


def train_baselines(arguments: Namespace) -> None:
    """Train the networks that the baselines of params.yaml need.

    Resumes unfinished runs and reuses finished ones (runs/). Writes models/baselines.
    """
    from rdmd.pipeline.launch import TrainingProcesses
    from rdmd.pipeline.training import train_baselines as run

    folders = run(config.load(), LAYOUT, _bars, TrainingProcesses())
    print(f"{LAYOUT.baselines} holds {len(folders)} trained networks")


def evaluate(arguments: Namespace) -> None:
    """Evaluate every generator and baseline on the test split.

    Writes reports/metrics.json, pareto.csv, pareto.png, samples.png and index.html.
    """
    from rdmd.pipeline.evaluation import evaluate as run

    run(config.load(), LAYOUT)
    summary(arguments)


def summary(arguments: Namespace) -> None:
    """Show what came out: the table, the report, the registered champion."""
    from rdmd.evaluation.table import format_table, read_metrics

    if not LAYOUT.metrics.exists():
        raise UserError(f"{LAYOUT.metrics} does not exist yet; run `make repro` (or `dvc repro`) first.")
    print(format_table(read_metrics(LAYOUT.metrics)))
    print(f"\nreport     {LAYOUT.reports / 'index.html'}")
    if not LAYOUT.registry.exists():
        return
    uri = _champion()
    if uri is None:
        print("champion   none: a generator from noise does not translate")
        return
    from rdmd.pipeline.store import unregistered

    try:
        reason = unregistered(LAYOUT.registry)
    except UserError as error:
        print(f"champion   {uri}, but {error}")
        return
    if reason is not None:
        print(f"champion   none here: {reason}\nregister   make repro (or: dvc repro --single-item --force register)")
        return
    print(f"champion   {uri}")
    refused = json.loads(LAYOUT.registry.read_text(encoding="utf-8")).get("refused")
    if refused is not None:
        print(f"           stays, since version {refused['version']} was not promoted: {refused['reason']}")
    print(f"translate  rdmd translate {uri} IN OUT")
    print("serve      make serve")
    print("look       make ui")


def registry(arguments: Namespace) -> None:
    """List, promote and roll back registered generators.

    The rules are `register` in params.yaml; docs/registry.md tells of them.
    """
    from flows.registry.commands import COMMANDS

    COMMANDS[arguments.action](arguments)


def translate(arguments: Namespace) -> None:
    """Translate images with a trained generator.

    Input images have any size; every result has the size of its image.
    """
    import logging
    import sys
    from dataclasses import replace

    from rdmd.pipeline.translate import translate_path
    from rdmd.pretrained import Translator
    from rdmd.serving.images import Sizing
    from rdmd.serving.watch import LOG, Watch

    # One sentence at the end instead of a warning for every batch.
    LOG.setLevel(logging.ERROR)
    use_local_tracking()
    translator = Translator.from_pretrained(arguments.model, arguments.device)
    seen = Watch(translator.card.source) if translator.card.source else None
    sizing = Sizing(arguments.resolution, arguments.keep_detail)
    outcome = translate_path(
        replace(translator.model.at(arguments.lam), watch=seen), arguments.input, arguments.out, sizing
    )
    if outcome.broken:
        name, reason = outcome.broken[0]
        total = len(outcome.broken) + outcome.written
        raise UserError(
            f"{len(outcome.broken)} of {total} images in {arguments.input} could not be read and were "
            f"left out (the first: {name}: {reason}); mend or remove "
            f"them; {outcome.written} are in {arguments.out}."
        )
    print(f"{outcome.written} written to {arguments.out}")
    if seen is not None and seen.unlike:
        print(
            f"{seen.unlike} of {seen.inputs} are unlike the images that this model was trained on, so expect little of "
            "their translations",
            file=sys.stderr,
        )


def serve(arguments: Namespace) -> None:
    """Serve the registered champion over HTTP on this machine.

    Predictions are at /invocations, a health check at /ping, counters and times at /metrics.
    """
    from rdmd.pipeline.process_group import exit_on_signals, run_in_group
    from rdmd.pipeline.store import without_alias

    use_local_tracking()
    # MLflow takes half a minute to find that the port is taken.
    listen("the server", arguments.host, arguments.port).close()
    model = arguments.model or _champion()
    if model is None:
        raise UserError(
            f"{LAYOUT.registry} names no champion, since a generator from noise does not translate; give "
            "a model of another experiment."
        )
    version = without_alias(model)
    # By its path, and without that path's folder on sys.path: the model brings an `rdmd` of its own.
    server = Path(__file__).parent / "serving" / "server.py"
    options = ["--model-uri", version, "--host", arguments.host, "--port", str(arguments.port)]
    if arguments.log is not None:
        options += ["--log", str(arguments.log)]
    command = [sys.executable, "-P", str(server), *options]
    if version != model:
        print(f"{model} is {version} now; if the alias moves, restart this server", flush=True)
    print(f"serving {version} at http://{arguments.host}:{arguments.port}/invocations; Ctrl-C stops it", flush=True)
    # Otherwise MLflow's server would outlive this process and keep the port.
    exit_on_signals()
    with contextlib.suppress(KeyboardInterrupt):
        status = run_in_group(command, dict(os.environ), lambda line: print(line, file=sys.stderr))
        if status:
            raise UserError(f"MLflow could not serve {model} (status {status}); its own message is above.")


def monitor(arguments: Namespace) -> None:
    """Compare what a served model was asked with its training source and its evaluation.

    A line for each day of the log. Exits with 1 if something is wrong on the last day.
    """
    from rdmd.pipeline.model_source import evaluated_cost, read_model_card
    from rdmd.pipeline.monitor import by_day, format_days, read_log

    use_local_tracking()
    requests = read_log(arguments.log)
    model = arguments.model or _champion()
    if model is None:
        raise UserError(f"{LAYOUT.registry} names no champion; give --model.")
    card = read_model_card(model)
    if card.source is None:
        raise UserError(f"{model} knows nothing of its training source, as a model of points; give one of images.")
    days = list(by_day(requests, card.source, card.lam, evaluated_cost(model)))
    print(format_days(days))
    if days[-1].alarms:
        sys.exit(1)


def demo(arguments: Namespace) -> None:
    """Open a page that translates an image by every generator of the front."""
    from rdmd.pipeline.process_group import exit_on_signals
    from rdmd.pretrained import device_of
    from rdmd.serving.demo import Front, serve_demo

    settings = config.load()
    if isinstance(settings.domains.source, config.Noise):
        raise UserError(
            "domains.source is noise, so there is no image to upload; put an experiment that translates "
            "into params.yaml with `rdmd use`."
        )
    if settings.preprocess.kind == "points":
        raise UserError(
            "preprocess.kind is 'points', and the demo shows images; put an experiment of images into "
            "params.yaml with `rdmd use`."
        )
    with listen("the demo", arguments.host, arguments.port) as free:
        port = free.getsockname()[1]
    exit_on_signals()
    serve_demo(Front(LAYOUT, device_of(arguments.device)), LAYOUT, f"RDMD: {settings.experiment}", arguments.host, port)


def export(arguments: Namespace) -> None:
    """Write a trained generator as an ONNX file.

    Any batch size; the file is checked against torch before it is kept.
    """
    from rdmd.pretrained import Translator
    from rdmd.serving.export import export_onnx

    use_local_tracking()
    translator = Translator.from_pretrained(arguments.model, "cpu")
    difference = export_onnx(translator.model, arguments.out)
    unit = "" if translator.model.of_points else " of 255"
    print(f"{arguments.out} written; on random samples it differs from torch by at most {difference:.2g}{unit}")


def convert_edm(arguments: Namespace) -> None:
    """Turn a published EDM pickle into safetensors.

    Reads the tensors without executing anything in the pickle; the result is for teacher.init.
    """
    from rdmd.networks.edm_import import convert

    print(f"{convert(arguments.pickle, arguments.out)} tensors written to {arguments.out}; set teacher.init to it")


def dry_run(arguments: Namespace) -> None:
    """Run every stage of an experiment for a few steps, and estimate the whole.

    A small part of the data, in a temporary folder; params.yaml, runs/ and models/ stay as they are. Ends with hours
    and memory, from measured steps.
    """

    from rdmd.pipeline.dry_run import describe
    from rdmd.pipeline.dry_run import dry_run as run

    named = Path(arguments.name)
    settings = config.load(named if named.suffix in (".yaml", ".yml") else files.find(arguments.name).path)
    if (
        arguments.keep is not None
        and arguments.keep.exists()
        and (not arguments.keep.is_dir() or any(arguments.keep.iterdir()))
    ):
        raise UserError(f"--keep {arguments.keep} is not an empty folder; name a new or an empty one.")
    print(
        f"DRY RUN of {arguments.name}: a few steps on a small part of the data. Its metrics and models mean nothing.",
        flush=True,
    )
    with contextlib.ExitStack() as stack:
        root = arguments.keep or Path(tempfile.mkdtemp(prefix="rdmd-dry-run-"))
        root.mkdir(parents=True, exist_ok=True)
        if not arguments.keep:
            stack.callback(shutil.rmtree, root)
        try:
            found = run(settings, root, lambda line: print(line, flush=True), _bars)
        except UserError:
            # Its sentence may name a log.
            stack.pop_all()
            raise
        print(f"every stage ran\n{describe(found)}")
        if arguments.keep:
            print(f"all of it is in {arguments.keep}")


def clean(arguments: Namespace) -> None:
    """Say what is kept but needed no longer, or delete it.

    Runs and checkpoints that nothing refers to, cached features, and the runs that were deleted in MLflow.
    """
    from rdmd.pipeline.clean import DESCRIPTIONS, delete, find_unused

    if not arguments.days >= 0:
        raise UserError(f"--days is {arguments.days:g}; give a number of days, 0 or more.")
    unused = find_unused(LAYOUT, arguments.days)
    for kind, description in DESCRIPTIONS.items():
        found = [item for item in unused if item.kind == kind]
        if found:
            print(f"{len(found)} {description}: {sum(item.size for item in found) / 2**20:.1f} MiB")
            for item in found:
                print(f"  {item.size / 2**20:8.1f} MiB  {item.path}")
    total = f"{sum(item.size for item in unused) / 2**20:.1f} MiB"
    if arguments.yes:
        delete(unused)
        print(f"freed {total}")
    else:
        print(f"would free {total}" + ("; `rdmd clean --yes` deletes it" if unused else ""))


def doctor(arguments: Namespace) -> None:
    """Report what this machine has, and what would fail."""
    from rdmd.doctor import examine

    failing = []
    for finding in examine(LAYOUT):
        print(f"{finding.verdict:<5} {finding.subject:<12} {finding.text}", flush=True)
        failing += [finding.subject] if finding.verdict == "FAIL" else []
    if failing:
        raise UserError(f"the pipeline would fail here: {', '.join(failing)}; the lines above say how to mend it.")


def _champion() -> str | None:
    """The URI of the registered champion; None where the experiment registers nothing."""
    if not LAYOUT.registry.exists():
        raise UserError(
            f"{LAYOUT.registry} does not exist, so nothing is registered yet; run `make repro` (or `dvc repro`) first, "
            "or name a model with --model."
        )
    try:
        champion = json.loads(LAYOUT.registry.read_text(encoding="utf-8"))["champion"]
        return None if champion is None else str(champion)
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{LAYOUT.registry} is damaged; make it again with `dvc repro -f register`.") from None


@contextlib.contextmanager
def _bars(folder: "RunFolder", run: "TrainingRun") -> "Iterator[Callable[[list[Point]], None]]":
    from rdmd.training.run_config import run_name

    with run_bar(run_name(run), run.settings.steps) as bar:
        yield bar.follow
