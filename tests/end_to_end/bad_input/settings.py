"""A wrong params.yaml, a wrong experiment, a wrong command line."""

from itertools import pairwise
from pathlib import Path

from bad_input.project import PARAMS
from bad_input.row import Row, both, edited, nothing, removed, written

CHECK = "rdmd check"
SWISSROLL = (Path(__file__).parents[3] / "experiments" / "swissroll.yaml").read_text(encoding="utf-8")


def spoilt(name: str, old: str, new: str, names: str, remedy: str) -> Row:
    """A row in which one place of params.yaml is wrong."""
    return Row(name, edited(old, new), CHECK, names, remedy)


def wrong_lambdas(given: str, names: str, remedy: str = "change it") -> Row:
    """A row with another list of lambdas."""
    return spoilt(f"lambdas: {given}", "lambdas: [0.1]", f"lambdas: {given}", names, remedy)


def wrong_cost(given: str, names: str, remedy: str) -> Row:
    """A row with another transport cost."""
    return spoilt(f"cost: {given}", "lambdas: [0.1]", f"lambdas: [0.1]\n  cost: {given}", names, remedy)


def wrong_baseline(given: str, names: str, remedy: str = "change it") -> Row:
    """A row with another baseline in SDEdit's place."""
    return spoilt(f"baselines: {given}", "sdedit: {sigmas: [1.0], steps: 2}", given, names, remedy)


def wrong_register(given: str, names: str, remedy: str = "change it") -> Row:
    """A row with another rule of the registry."""
    return spoilt(f"register: {given}", "  champion: manual", f"  {given}", names, remedy)


def folder_for_params() -> None:
    """params.yaml as a folder."""
    Path("params.yaml").unlink()
    Path("params.yaml").mkdir()


FILE = [
    Row("no params.yaml", removed("params.yaml"), CHECK, "params.yaml does not exist", "`rdmd use digits`"),
    Row("params.yaml empty", written("params.yaml", ""), CHECK, "params.yaml holds no settings", "`rdmd use digits`"),
    Row("params.yaml a list", written("params.yaml", "- 1\n- 2\n"), CHECK, "params.yaml holds no", "`rdmd use digits`"),
    Row("params.yaml a folder", folder_for_params, CHECK, "params.yaml is not a text file", "`rdmd use digits`"),
    Row(
        "params.yaml in bytes",
        written("params.yaml", b"\xff\xfe\x00a"),
        CHECK,
        "params.yaml is not a text file",
        "`rdmd use digits`",
    ),
    spoilt("a bracket open", "lambdas: [0.1]", "lambdas: [0.1", "params.yaml, line", "correct that line"),
    spoilt("a tab", "seed: 0", "\tseed: 0", "params.yaml, line 2", "correct that line"),
    spoilt("a key twice", "seed: 0", "seed: 0\nseed: 1", "the key `seed` stands twice", "correct that line"),
    spoilt("a list as a key", "seed: 0", "? [seed]\n: 0", "params.yaml, line 2", "correct that line"),
    spoilt("a date without its day", "seed: 0", "seed: 2026-13-45", "month must be in 1..12", "correct that value"),
    spoilt("a tag of another type", "seed: 0", "seed: !!bool seven", "not of its type ('seven')", "correct that value"),
    spoilt(
        "aliases of aliases",
        "seed: 0",
        "a: &a [0, 0, 0, 0, 0, 0, 0, 0]\n"
        + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefgh"))
        + "seed: *h",
        "more than 100000 values",
        "remove the aliases",
    ),
    spoilt("brackets without end", "seed: 0", f"seed: {'[' * 2000}", "nested too deeply", "`rdmd use digits`"),
]

KEYS = [
    spoilt("unknown section", "register:", "registry:", "unknown key `registry`", "did you mean `register`?"),
    spoilt("section misspelt", "distill:", "distil:", "unknown key `distil`", "did you mean `distill`?"),
    spoilt("key misspelt", "n_source: 4", "n_sources: 4", "unknown key `evaluate.n_sources`", "`n_source`?"),
    spoilt("unknown key", "seed: 0", "seed: 0\nzzz: 1", "unknown key `zzz`", "remove it"),
    spoilt("key in another section's place", "seed: 0", "seed: 0\nbatch: 1", "unknown key `batch`", "move it"),
    spoilt("section missing", "register:\n  champion: manual\n", "", "`register` is missing", "add it"),
    spoilt("key missing", "  steps: 4\n", "", "`teacher.steps` is missing", "add it"),
    spoilt(
        "reader missing",
        "    reader: images\n    path: data/raw/source",
        "    path: data/raw/source",
        "`domains.source.reader` is missing",
        "add it",
    ),
    spoilt(
        "section a number",
        "register:\n  champion: manual\n",
        "register: 5\n",
        "`register` is a section",
        "below it",
    ),
    spoilt("section empty", "register:\n  champion: manual\n", "register:\n", "`register` is a section", "below it"),
]

BASELINES = [
    wrong_baseline("sdedit: {sigmas: [], steps: 2}", "`baselines.sdedit.sigmas` is []: list should have at least 1"),
    wrong_baseline("sdedit: {sigmas: [1.0], steps: yes}", "`baselines.sdedit.steps`: yes or no", "give a number"),
    wrong_baseline("sdedit_sde: {sigmas: [0]}", "`baselines.sdedit_sde.sigmas.0` is 0: input should be greater"),
    wrong_baseline("sdedit_sde: {sigmas: [1], steps: 1001}", "`baselines.sdedit_sde.steps` is 1001"),
    wrong_baseline("ilvr: {factors: []}", "`baselines.ilvr.factors` is []: list should have at least 1"),
    wrong_baseline("ilvr: {factors: [1]}", "`baselines.ilvr.factors.0` is 1: input should be greater"),
    wrong_baseline(
        "ilvr: {factors: [2, 3]}", "baselines.ilvr.factors.1 is 3, which does not divide", "use a factor that does"
    ),
    wrong_baseline("ilvr: {factors: [2], sigma_stops: [80]}", "`baselines.ilvr.sigma_stops.0` is 80"),
    wrong_baseline("ilvr: {factors: [2], steps: 0}", "`baselines.ilvr.steps` is 0: input should be greater"),
    wrong_baseline("egsde: {sigmas: [1], repel: [-1], attract: [1]}", "`baselines.egsde.repel.0` is -1"),
    wrong_baseline("egsde: {sigmas: [1], repel: [1], attract: []}", "`baselines.egsde.attract` is []"),
    wrong_baseline("egsde: {sigmas: [1], repel: [1]}", "the key `baselines.egsde.attract` is missing", "add it"),
    wrong_baseline(
        "egsde: {sigmas: [1], repel: [1], attract: [1], factor: 3}",
        "baselines.egsde.factor is 3",
        "use a factor that does",
    ),
    wrong_baseline(
        "egsde: {sigmas: [1], repel: [1], attract: [1], classifier: {steps: 0}}",
        "`baselines.egsde.classifier.steps` is 0: input should be greater",
    ),
    wrong_baseline("ddib: {steps: [1]}", "`baselines.ddib.steps.0` is 1: input should be greater"),
    wrong_baseline("ddib: {steps: 10}", "`baselines.ddib.steps` is 10: input should be a valid list"),
    wrong_baseline("neural_ot: {steps: 4}", "the key `baselines.neural_ot.batch` is missing", "add it"),
    wrong_baseline("neural_ot: {steps: 4, batch: 4, map_lr: 0}", "`baselines.neural_ot.map_lr` is 0"),
    wrong_baseline("neural_ot: {steps: 4, batch: 4, cost_weights: [0]}", "`baselines.neural_ot.cost_weights.0` is 0"),
    wrong_baseline(
        "neural_ot: {steps: 4, batch: 4, cost_weights: [1, 1.0]}",
        "each of `cost_weights` may stand once",
        "remove the repeated one",
    ),
    wrong_baseline("neural_ot: {steps: 4, batch: 4, decay: exp}", "`baselines.neural_ot.decay` is 'exp'"),
    wrong_baseline("cut: {steps: 4, batch: 4, nce_weights: [0]}", "`baselines.cut.nce_weights.0` is 0"),
    wrong_baseline(
        "cut: {steps: 4, batch: 4, nce_weights: [1, 1.0]}",
        "each of `nce_weights` may stand once",
        "remove the repeated one",
    ),
    wrong_baseline("ilvd: {factors: [2]}", "unknown key `baselines.ilvd`", "did you mean `ilvr`?"),
    Row(
        "ILVR on points",
        written("params.yaml", SWISSROLL.replace("ilvr: null", "ilvr: {factors: [2]}")),
        CHECK,
        "baselines.ilvr works on images alone",
        "set it to null",
    ),
    Row(
        "CUT on points",
        written("params.yaml", SWISSROLL.replace("neural_ot: null", "cut: {steps: 4, batch: 4}")),
        CHECK,
        "baselines.cut works on images alone",
        "set it to null",
    ),
    # What it would compare with was never trained.
    Row(
        "a baseline's network missing",
        edited("sdedit: {sigmas: [1.0], steps: 2}", "ddib: {steps: [2]}"),
        "rdmd evaluate",
        "models/baselines/source-teacher/model.json does not exist",
        "train it with `dvc repro`",
        adds=(".cache*",),
    ),  # features of the references, which were taken before
]

VALUES = [
    spoilt(
        "the best of no evaluations",
        "lambdas: [0.1]",
        "lambdas: [0.1]\n  keep: best",
        "`keep` needs evaluations, but `evaluate_every` is 0",
        "set it to a number of steps",
    ),
    spoilt(
        "patience without evaluations",
        "lambdas: [0.1]",
        "lambdas: [0.1]\n  patience: 3",
        "`patience` needs evaluations, but `evaluate_every` is 0",
        "set it to a number of steps",
    ),
    spoilt(
        "a range of lambda from large to small",
        "lambdas: [0.1]",
        "lambdas: {from: 0.5, to: 0.1}",
        "but they are 0.5 and 0.1",
        "`from` must be below `to`",
    ),
    spoilt(
        "a range of lambda from -1",
        "lambdas: [0.1]",
        "lambdas: {from: -1, to: 0.1}",
        "`distill.lambdas.from` is -1: input should be greater than 0",
        "change it",
    ),
    spoilt(
        "a negative input noise",
        "lambdas: [0.1]",
        "lambdas: [0.1]\n  input_noise: -1",
        "`distill.input_noise` is -1",
        "change it",
    ),
    spoilt(
        "an input noise in words",
        "lambdas: [0.1]",
        "lambdas: [0.1]\n  input_noise: some",
        "`distill.input_noise` is 'some'",
        "change it",
    ),
    spoilt(
        "an input noise too many",
        "lambdas: [0.1]",
        "lambdas: [0.1]\n  input_noise: [0, 1]",
        "`input_noise` has two values, but `lambdas` is a list",
        "give one number",
    ),
    spoilt(
        "shared draws of two laws",
        "lambdas: [0.1]",
        "lambdas: [0.1]\n  fake_draws: shared\n  fake_noise: {distribution: lognormal}",
        "`fake_draws` is shared",
        "remove it, or set `fake_draws` to own",
    ),
    wrong_cost("l3", "`distill.cost`: 'l3' is no transport cost", "use one of squared_l2, l1, huber"),
    wrong_cost("3", "`distill.cost`: needs a name", "or a section such as"),
    wrong_cost("{name: l3}", "`distill.cost.name` is 'l3'", "use one of 'squared_l2'"),
    wrong_cost("{delta: 0.1}", "the key `distill.cost.name` is missing", "add it"),
    wrong_cost("lpips", "the key `distill.cost.weights` is missing", "add it"),
    wrong_cost("{name: lpips, weights: a}", "distill.cost is 'lpips', which needs images of 32x32", "use another cost"),
    wrong_cost("{name: huber, delta: 0}", "`distill.cost.delta` is 0: input should be greater", "change it"),
    wrong_cost("{name: low_pass, sigma: -1}", "`distill.cost.sigma` is -1: input should be greater", "change it"),
    wrong_cost("{name: l1, sigma: 1}", "unknown key `distill.cost.sigma`", "remove it"),
    wrong_cost("{name: features, weights: nowhere}", "distill.cost.weights is nowhere", "use another cost"),
    wrong_lambdas("[-1]", "`distill.lambdas.0` is -1: input should be greater than or equal to 0"),
    wrong_lambdas("[0.1, abc]", "`distill.lambdas.1` is 'abc': input should be a valid number"),
    wrong_lambdas("[.nan]", "`distill.lambdas.0` is nan: input should be a finite number"),
    wrong_lambdas("[.inf]", "`distill.lambdas.0` is inf: input should be a finite number"),
    wrong_lambdas("[]", "`distill.lambdas` is []: list should have at least 1 item"),
    wrong_lambdas("0.1", "`distill.lambdas` is 0.1: input should be a valid list"),
    wrong_lambdas("[0.1, 0.10]", "each of `lambdas` may stand once", "remove the repeated one"),
    # Both would be called lambda-0.1.
    wrong_lambdas("[0.1, 0.1000000001]", "each of `lambdas` may stand once", "remove the repeated one"),
    spoilt("no steps", "steps: 4", "steps: 0", "`teacher.steps` is 0: input should be greater", "change it"),
    spoilt("negative batch", "batch: 8", "batch: -1", "`evaluate.features.batch` is -1", "change it"),
    spoilt("yes for a number", "batch: 8", "batch: yes", "`evaluate.features.batch`: yes or no", "give a number"),
    spoilt("no learning rate", "lr: 0.001", "lr: 0", "`teacher.lr` is 0: input should be greater", "change it"),
    spoilt("no probability", "lr: 0.001", "lr: 0.001\n  augment: 2", "`teacher.augment` is 2", "change it"),
    spoilt(
        "no labels of augmentation",
        "lr: 0.001",
        "lr: 0.001\n  augment: 0.15",
        "teacher.augment is 0.15, but network.augment_dim, the number of its labels, is 0",
        "set it to 9",
    ),
    spoilt(
        "shifted out", "lr: 0.001", "lr: 0.001\n  shift: 8", "teacher.shift is 8, but images have 8", "a few pixels"
    ),
    spoilt("half a seed", "seed: 0", "seed: 1.5", "`seed` is 1.5: input should be a valid integer", "change it"),
    spoilt("experiment with a space", "experiment: tiny", "experiment: My images", "`experiment` is", "change it"),
    wrong_register("champion: best", "`register.champion`: 'best' is no rule", "use one of cheapest-near-best"),
    wrong_register("champion: 3", "`register.champion`: needs a rule", "or a section such as"),
    wrong_register(
        "champion: {rule: best}", "`register.champion.rule` is 'best'", "input should be 'cheapest-near-best'"
    ),
    wrong_register("champion: {factor: 2}", "the key `register.champion.rule` is missing", "add it"),
    wrong_register("champion: {rule: manual, fid: 20}", "unknown key `register.champion.fid`", "move it there"),
    wrong_register(
        "champion: {rule: most-faithful, factor: 3}", "`register.champion`: `factor` belongs to the rule", "remove it"
    ),
    wrong_register("front: points", "unknown key `register.front`", "remove it"),
    wrong_register(
        "champion: {rule: cheapest-near-best, factor: 0.5}",
        "`register.champion.factor` is 0.5: input should be greater",
    ),
    wrong_register("experiments: often", "`register.experiments` is 'often'"),
    wrong_register("constraints: {fid: -1}", "`register.constraints.fid` is -1: input should be greater"),
    wrong_register("constraints: {cost: yes}", "`register.constraints.cost`: yes or no", "give a number"),
    wrong_register("constraints: {sw2: 1}", "register.constraints.sw2 bounds what is not measured", "bound `fid`"),
    wrong_register("constraints: {psnr: 20}", "unknown key `register.constraints.psnr`", "remove it"),
    wrong_register("constraints: 20", "`register.constraints` is a section", "put its keys below it"),
    spoilt(
        "unknown reader",
        "reader: images\n    path: data/raw/source",
        "reader: jpegs\n    path: data/raw/source",
        "`domains.source.reader` is 'jpegs'",
        "use one of 'images'",
    ),
    spoilt(
        "reader of another kind",
        "reader: images\n    path: data/raw/source",
        "reader: points\n    path: params.yaml\n    law: gaussian",
        "domains.source.reader is 'points'",
        "make them agree",
    ),
    spoilt(
        "noise with a lambda",
        "reader: images\n    path: data/raw/source",
        "reader: noise\n    path: params.yaml",
        "domains.source is noise",
        "set it to [0]",
    ),
    spoilt(
        "noise of no size",
        "reader: images\n    path: data/raw/source",
        "reader: noise\n    path: params.yaml\n    std: 0",
        "`domains.source.std` is 0",
        "change it",
    ),
    spoilt(
        "no covariance",
        "reader: images\n    path: data/raw/source",
        "reader: points\n    path: params.yaml\n    law: gaussian\n    covariance: [[1, 2], [2, 1]]",
        "`domains.source`",
        "must be symmetric and positive definite",
    ),
    spoilt(
        "a mean for another law",
        "reader: images\n    path: data/raw/source",
        "reader: points\n    path: params.yaml\n    law: swissroll\n    mean: [1, 0]",
        "`domains.source`",
        "belong to the law `gaussian`",
    ),
    spoilt(
        "one test sample",
        "min_test: 2",
        "min_test: 1",
        "`validation.min_test` is 1: input should be greater",
        "change it",
    ),
    spoilt(
        "features without labels",
        "    path: data/raw/target\n",
        "    path: data/raw/target\n  features:\n    reader: images\n    path: data/raw/target\n",
        "domains.features.reader is 'images', which has no labels",
        "use `digits` or `mnist`",
    ),
    Row(
        "a target class that is not learned",
        both(
            edited(
                "    path: data/raw/target\n",
                "    path: data/raw/target\n  features:\n    reader: digits\n"
                "    path: params.yaml\n    classes: [2, 3]\n",
            ),
            edited("n_source: 4", "n_source: 4\n  target_class: 5"),
        ),
        CHECK,
        "evaluate.target_class is 5, but domains.features.classes is [2, 3]",
        "take one of these",
    ),
    Row(
        "more references than points",
        written("params.yaml", SWISSROLL.replace("n_reference: 4000", "n_reference: 4000\n  references: 2")),
        CHECK,
        "evaluate.references is 2 times 4000 points",
        "lower it",
    ),
    spoilt("no points of W2", "n_source: 4", "n_source: 4\n  n_w2: 1", "`evaluate.n_w2` is 1", "change it"),
    spoilt(
        "train without test",
        "path: data/raw/source",
        "path: data/raw/source\n    train: a",
        "`domains.source`",
        "give both `train` and `test`",
    ),
    spoilt(
        "network of another kind",
        PARAMS[PARAMS.index("network:") : PARAMS.index("teacher:")],
        "network: {kind: mlp}\n",
        "network.kind is 'mlp'",
        "images need `ddpmpp`",
    ),
    spoilt(
        "resolution not divisible", "resolution: 8", "resolution: 9", "preprocess.resolution 9", "use a multiple of 2"
    ),
    spoilt("compiled otherwise", "launch:", "launch:\n  compile: fast", "`launch.compile` is 'fast'", "change it"),
    spoilt(
        "no part of a batch",
        "launch:",
        "launch:\n  accumulate: 0",
        "`launch.accumulate` is 0: input should be",
        "change it",
    ),
    spoilt(
        "more parts than samples",
        "launch:",
        "launch:\n  accumulate: 3",
        "teacher.batch is 4, but launch.processes 1",
        "use a multiple of 3",
    ),
    spoilt(
        "checkpointing of a level that is not there",
        "launch:",
        "launch:\n  activation_checkpointing: 16",
        "launch.activation_checkpointing is 16, but no level",
        "use at most that",
    ),
    Row(
        "checkpointing of points",
        written("params.yaml", SWISSROLL.replace("launch:", "launch:\n  activation_checkpointing: 8")),
        CHECK,
        "launch.activation_checkpointing is 8, which names levels of a U-Net",
        "set it to null",
    ),
    spoilt(
        "no such source",
        "data/raw/source",
        "data/raw/nowhere",
        "domains.source.path is data/raw/nowhere",
        "correct the path",
    ),
    spoilt(
        "no such teacher.init",
        "init: null",
        "init: data/raw/none.safetensors",
        "teacher.init is data/raw/none",
        "give a safetensors file",
    ),
]

EXPERIMENTS = [
    Row("outside git", removed(".git"), CHECK, "not in a git repository", "`git init`"),
    Row(
        "no such experiment", nothing, "rdmd use nowhere", "no experiment 'nowhere' in experiments/", "use one of other"
    ),
    Row(
        "an experiment that is wrong",
        written("experiments/other.yaml", PARAMS.replace("steps: 4", "steps: 0")),
        "rdmd use other",
        "experiments/other.yaml: `teacher.steps`",
        "change it",
    ),
    Row(
        "edits that are nowhere else",
        edited("seed: 0", "seed: 7"),
        "rdmd use other",
        "params.yaml holds edits",
        "`rdmd use other --force`",
    ),
    Row(
        "no experiments/",
        removed("experiments"),
        "rdmd experiments",
        "experiments/ does not exist",
        "from the project's root",
    ),
    Row(
        "experiments/ empty",
        removed("experiments/other.yaml"),
        "rdmd experiments",
        "experiments/ holds no .yaml",
        "save a complete params file",
    ),
]

COMMAND_LINE = [
    Row("no such command", nothing, "rdmd nonsense", "invalid choice: 'nonsense'", "see `rdmd --help`"),
    Row("no arguments", nothing, "rdmd translate", "required: MODEL, IN, OUT", "see `rdmd translate --help`"),
    Row("a setting as a flag", nothing, "rdmd distill --lambdas 3", "unrecognized arguments: --lambdas", "--help`"),
    Row("port abc", nothing, "rdmd serve --port abc", "--port: invalid int value: 'abc'", "see `rdmd serve --help`"),
    Row("the registry without an action", nothing, "rdmd registry", "required: ACTION", "see `rdmd registry --help`"),
    Row(
        "a version and a lambda",
        nothing,
        "rdmd registry promote 3 --lambda 0.1",
        "not allowed with argument",
        "see `rdmd registry promote --help`",
    ),
    Row(
        "an alias for nothing",
        nothing,
        "rdmd registry promote --alias canary",
        "--alias canary needs a version",
        "name one, or give --lambda",
    ),
    Row("nothing registered", nothing, "rdmd registry list", "mlflow.db does not exist", "run `make repro` first"),
    Row("a lambda that is none", nothing, "rdmd registry promote --lambda x", "invalid float value: 'x'", "--help`"),
    # `source` is sound, and is not written either.
    Row(
        "no such domain",
        edited("test_fraction: 0.3", "test_fraction: 0.4"),
        "rdmd preprocess source nowhere",
        "no domain 'nowhere'",
        "name one of source, target",
    ),
    Row(
        "doctor with a wrong setting",
        both(edited("steps: 4", "steps: 0")),
        "rdmd doctor",
        "params.yaml",
        "the lines above say how",
    ),
]

ROWS = [*FILE, *KEYS, *BASELINES, *VALUES, *EXPERIMENTS, *COMMAND_LINE]
