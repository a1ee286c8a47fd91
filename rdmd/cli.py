"""The `rdmd` command."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from rdmd import __version__, commands
from rdmd.errors import EXIT_USER_ERROR, reporting
from rdmd.ports import keep_loopback_direct

EPILOG = """\
from two folders to a served model:
  rdmd use folder                  put an experiment into params.yaml, then set the two paths in it
  dvc repro                        run all that is out of date (make repro does it too)
  rdmd summary                     what came out
  rdmd translate models:/rdmd-folder@champion in/ out/

Every stage of `dvc repro` can be run alone by its command here. Settings are in params.yaml, never in flags.
Errors of input are explained in one sentence; --debug shows the traceback.
"""


class Parser(argparse.ArgumentParser):
    """A parser that explains a wrong command line in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"rdmd: {message}; see `{self.prog} --help`.\n")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one command. Exits with 0, or 2 with one sentence, or 130 after Ctrl-C."""
    keep_loopback_direct()
    given = parser().parse_args(arguments)
    with reporting(given.debug):
        given.run(given)
    sys.exit(0)


def parser() -> argparse.ArgumentParser:
    """The command line, with help that teaches."""
    top = Parser(
        prog="rdmd",
        description="One-step unpaired image-to-image translation by Regularized Distribution Matching Distillation.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rdmd {__version__}")
    top.add_argument("--debug", action="store_true", help="show tracebacks")
    every = top.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: object, text: str, more: str = "") -> argparse.ArgumentParser:
        command = every.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip())
        # SUPPRESS: a default here would undo a --debug given before the command.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        command.set_defaults(run=run)
        return command

    add(
        "experiments",
        commands.experiments,
        "list the experiments",
        "Each is a complete params file in experiments/; save yours there to list it too.",
    )
    use = add(
        "use",
        commands.use,
        "put an experiment into params.yaml",
        "Refuses to overwrite edits that are neither committed nor saved as an experiment.",
    )
    use.add_argument("name", help="a name that `rdmd experiments` lists")
    use.add_argument("--force", action="store_true", help="overwrite edits")
    add("check", commands.check, "check params.yaml and the files that it names, in a second")

    preprocess = add(
        "preprocess",
        commands.preprocess,
        "read the domains and write WebDataset shards",
        "The shards lie in data/shards/DOMAIN; the same input gives the same bytes.",
    )
    preprocess.add_argument("domain", nargs="*", help="source, target or features; all of them if none is named")
    add(
        "validate",
        commands.validate,
        "check the shards with Great Expectations",
        "Writes reports/validation.json and the pages in reports/data_docs.",
    )
    add("features", commands.features, "train the feature network of FID and KID", "Writes models/features.")
    add(
        "train-teacher",
        commands.train_teacher,
        "train or fine-tune the diffusion teacher on the target",
        "Resumes an unfinished run and reuses a finished one (runs/). Writes models/teacher.",
    )
    add(
        "distill",
        commands.distill,
        "distil a one-step generator for every lambda of params.yaml",
        "Resumes unfinished runs and reuses finished ones (runs/). Writes models/generators.",
    )
    add(
        "train-baselines",
        commands.train_baselines,
        "train the networks that the baselines of params.yaml need",
        "Resumes unfinished runs and reuses finished ones (runs/). Writes models/baselines.",
    )
    add(
        "evaluate",
        commands.evaluate,
        "evaluate every generator and baseline on the test split",
        "Writes reports/metrics.json, pareto.csv, pareto.png, samples.png and index.html.",
    )
    serve = add(
        "serve",
        commands.serve,
        "serve the registered champion over HTTP on this machine",
        "Runs `mlflow models serve`; docs at /version and /ping, predictions at /invocations.",
    )
    serve.add_argument("--model", help="models:/NAME@alias or models:/NAME/VERSION (default: the champion)")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    serve.add_argument("--port", type=int, default=5001)
    demo = add(
        "demo",
        commands.demo,
        "open a page that translates an image by every generator of the front",
        "The registered generators, or those of models/generators where nothing is registered.",
    )
    demo.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    demo.add_argument("--port", type=int, default=0, help="default: a free one")
    demo.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    _registry(
        add(
            "registry",
            commands.registry,
            "list, promote and roll back registered generators",
            "The rules are `register` in params.yaml; docs/registry.md tells of them.",
        )
    )
    add("summary", commands.summary, "show what came out: the table, the report, the registered champion")

    translate = add(
        "translate",
        commands.translate,
        "translate images with a trained generator",
        "Input images have any size; every result has the size of its image.",
    )
    translate.add_argument(
        "model",
        metavar="MODEL",
        help="models/generators/lambda-0.1, an entry of runs/, or models:/rdmd-digits@champion",
    )
    translate.add_argument(
        "--lambda",
        dest="lam",
        type=float,
        help="within the model's range: small is realistic, large is faithful (default: the registered value)",
    )
    translate.add_argument(
        "--keep-detail",
        action="store_true",
        help="add the detail of the source that the model's resolution cannot hold",
    )
    translate.add_argument(
        "--resolution",
        type=_resolution,
        help="pixels of the shorter side on its way through the generator (default: that of the training)",
    )
    translate.add_argument("given", metavar="IN", type=Path, help="an image or a folder of images")
    translate.add_argument("out", metavar="OUT", type=Path, help="a file for an image, a folder for a folder")
    translate.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")

    export = add(
        "export",
        commands.export,
        "write a trained generator as an ONNX file",
        "Any batch size; the file is checked against torch before it is kept.",
    )
    export.add_argument(
        "model",
        metavar="MODEL",
        help="models/generators/lambda-0.1, an entry of runs/, or models:/rdmd-digits@champion",
    )
    export.add_argument("out", metavar="OUT", type=Path, help="for example generator.onnx")

    convert = add(
        "convert-edm",
        commands.convert_edm,
        "turn a published EDM pickle into safetensors",
        "Reads the tensors without executing anything in the pickle; the result is for teacher.init.",
    )
    convert.add_argument("pickle", type=Path, help="for example edm-afhqv2-64x64-uncond-vp.pkl")
    convert.add_argument("out", type=Path, help="for example data/raw/edm-afhqv2.safetensors")
    dry = add(
        "dry-run",
        commands.dry_run,
        "run every stage of an experiment for a few steps, and estimate the whole",
        "A small part of the data, in a temporary folder; params.yaml, runs/ and models/ stay as they are. Ends "
        "with hours and memory, from measured steps.",
    )
    dry.add_argument(
        "name",
        nargs="?",
        default="params.yaml",
        help="a params file, or a name that `rdmd experiments` lists (default: params.yaml)",
    )
    dry.add_argument("--keep", metavar="DIR", type=Path, help="leave everything in this empty or new folder")
    clean = add(
        "clean",
        commands.clean,
        "say what is kept but needed no longer, or delete it",
        "Runs and checkpoints that nothing refers to, cached features, and the runs that were deleted in MLflow.",
    )
    clean.add_argument("--yes", action="store_true", help="delete it")
    clean.add_argument(
        "--days", type=float, default=7.0, help="leave what was used in the last DAYS days (default: %(default)g)"
    )
    add("doctor", commands.doctor, "report what this machine has, and what would fail")
    return top


def _resolution(text: str) -> int:
    if not text.isdecimal() or not 8 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels from 8 to 4096")
    return int(text)


def _registry(command: argparse.ArgumentParser) -> None:
    """What `rdmd registry` can be told to do."""
    actions = command.add_subparsers(metavar="ACTION", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        action.add_argument("--model", metavar="NAME", help="a registered model (default: that of params.yaml)")
        action.set_defaults(action=name)
        return action

    add("list", "show the versions, their aliases and their numbers")
    add("rollback", "make the champion before this one the champion again")
    promote = add("promote", "make a version the champion: the one named, or else the rule's choice for this sweep")
    which = promote.add_mutually_exclusive_group()
    which.add_argument("version", metavar="VERSION", nargs="?", type=int, help="a number that `list` shows")
    which.add_argument("--lambda", metavar="L", dest="lam", type=float, help="the newest version of this lambda")
    promote.add_argument("--alias", default="champion", help="another alias than `champion`")


if __name__ == "__main__":
    main()
