"""The `rdmd` command."""

import argparse
import inspect
import sys
from pathlib import Path
from typing import NoReturn

from rdmd import __version__, commands
from rdmd.errors import EXIT_USER_ERROR, UserError, reporting
from rdmd.pipeline.experiments import NO_PROJECT, in_project
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


A_MODEL = "models/generators/lambda-0.1, an entry of runs/, or models:/rdmd-avatars@champion"
DEVICES = ("auto", "cpu", "cuda")
# Commands that need no checkout of the project.
ANYWHERE = ("translate", "export", "convert-edm", "serve", "monitor", "clean", "doctor")


class Parser(argparse.ArgumentParser):
    """A parser that explains a wrong command line in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"rdmd: {message}; see `{self.prog} --help`.\n")


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one command. Exits with 0, or 2 with one sentence, or 130 after Ctrl-C."""
    keep_loopback_direct()
    parsed = parser().parse_args(arguments)
    with reporting(parsed.debug):
        if parsed.needs_project and not in_project():
            raise UserError(NO_PROJECT)
        parsed.run(parsed)
    sys.exit(0)


def parser() -> Parser:
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

    def add(name: str) -> Parser:
        run = getattr(commands, name.replace("-", "_"))
        return _command(every, name, inspect.getdoc(run) or "", run=run, needs_project=name not in ANYWHERE)

    add("experiments")
    use = add("use")
    use.add_argument("name", help="a name that `rdmd experiments` lists")
    use.add_argument("--force", action="store_true", help="overwrite edits")
    add("check")
    preprocess = add("preprocess")
    preprocess.add_argument("domain", nargs="*", help="source, target or features; all of them if none is named")
    for name in ("validate", "features", "train-teacher", "distill", "train-baselines", "evaluate"):
        add(name)
    serve = add("serve")
    serve.add_argument("--model", help="models:/NAME@alias or models:/NAME/VERSION (default: the champion)")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    serve.add_argument("--port", type=int, default=5001)
    serve.add_argument("--log", metavar="FILE", type=Path, help="append a line for every request, for `rdmd monitor`")
    monitor = add("monitor")
    monitor.add_argument("log", metavar="LOG", type=Path, help="the file of `rdmd serve --log`")
    monitor.add_argument("--model", help="the model that was served (default: the champion)")
    demo = add("demo")
    demo.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    demo.add_argument("--port", type=int, default=0, help="default: a free one")
    demo.add_argument("--device", choices=DEVICES, default="auto")
    _registry(add("registry"))
    add("summary")
    translate = add("translate")
    translate.add_argument("model", metavar="MODEL", help=A_MODEL)
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
    translate.add_argument("input", metavar="IN", type=Path, help="an image or a folder of images")
    translate.add_argument("out", metavar="OUT", type=Path, help="a file for an image, a folder for a folder")
    translate.add_argument("--device", choices=DEVICES, default="auto")
    export = add("export")
    export.add_argument("model", metavar="MODEL", help=A_MODEL)
    export.add_argument("out", metavar="OUT", type=Path, help="for example generator.onnx")
    convert = add("convert-edm")
    convert.add_argument("pickle", type=Path, help="for example edm-afhqv2-64x64-uncond-vp.pkl")
    convert.add_argument("out", type=Path, help="for example data/raw/edm-afhqv2.safetensors")
    dry = add("dry-run")
    named = "a params file, or a name that `rdmd experiments` lists (default: params.yaml)"
    dry.add_argument("name", nargs="?", default="params.yaml", help=named)
    dry.add_argument("--keep", metavar="DIR", type=Path, help="leave everything in this empty or new folder")
    clean = add("clean")
    clean.add_argument("--yes", action="store_true", help="delete it")
    clean.add_argument(
        "--days", type=float, default=7.0, help="leave what was used in the last DAYS days (default: %(default)g)"
    )
    add("doctor")
    return top


def _resolution(text: str) -> int:
    if not text.isdecimal() or not 8 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels from 8 to 4096")
    return int(text)


def _command(commands: "argparse._SubParsersAction[Parser]", name: str, text: str, **defaults: object) -> Parser:
    """A command with `text` as its help; the first line of it stands in the list of commands."""
    first = text.partition("\n")[0].rstrip(".")
    command = commands.add_parser(name, help=first[0].lower() + first[1:], description=text)
    # SUPPRESS: a default here would undo a --debug given before the command.
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    command.set_defaults(**defaults)
    return command


def _registry(command: Parser) -> None:
    """What `rdmd registry` can be told to do."""
    actions = command.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)

    def add(name: str, text: str) -> Parser:
        action = _command(actions, name, text, action=name)
        action.add_argument("--model", metavar="NAME", help="a registered model (default: that of params.yaml)")
        return action

    add("list", "Show the versions, their aliases and their numbers.")
    add("rollback", "Make the champion before this one the champion again.")
    promote = add("promote", "Make a version the champion: the one named, or else the rule's choice for this sweep.")
    which = promote.add_mutually_exclusive_group()
    which.add_argument("version", metavar="VERSION", nargs="?", type=int, help="a number that `list` shows")
    which.add_argument("--lambda", metavar="L", dest="lam", type=float, help="the newest version of this lambda")
    promote.add_argument("--alias", default="champion", help="another alias than `champion`")


if __name__ == "__main__":
    main()
