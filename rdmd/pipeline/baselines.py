"""The stage that trains what baselines need beyond the teacher, and puts it under models/baselines."""

from concurrent.futures import ThreadPoolExecutor

from rdmd import config
from rdmd.files import replacing_folder, write_json
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import write_model
from rdmd.pipeline.plan import plan_baselines
from rdmd.pipeline.training import Backend, LocalTraining, SlotPool, Watch, card_of, gathered
from rdmd.training.folder import RunFolder
from rdmd.training.spec import run_name

INDEX = "baselines.json"


def train_baselines(
    settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses
) -> list[RunFolder]:
    """Train (or reuse) what the configured baselines need, as many runs at once as there are slots, and publish it."""
    return train_baselines_on(LocalTraining(SlotPool(settings.launch), layout, watch, processes), settings, layout)


def train_baselines_on(backend: Backend, settings: config.Settings, layout: Layout) -> list[RunFolder]:
    """As `train_baselines`, on any backend, with as many runs at once as it has room for."""
    runs = plan_baselines(settings, layout)
    with ThreadPoolExecutor(max_workers=max(1, len(runs))) as executor:
        folders = gathered([executor.submit(backend.train, run) for run in runs], backend.stop_all)
    publish_baselines(settings, layout, folders)
    return folders


def publish_baselines(settings: config.Settings, layout: Layout, folders: list[RunFolder]) -> None:
    """Replace models/baselines by one folder a finished run, and `baselines.json`, which lists them by name with their
    fingerprints and is there even where no baseline needs training."""
    with replacing_folder(layout.baselines) as temporary:
        trained = {}
        for folder in folders:
            result = folder.result()
            assert result is not None, f"{folder.path} is published before it is finished"
            name = run_name(folder.read_run())
            write_model(temporary / name, card_of(settings, folder, result), folder.weights)
            trained[name] = folder.fingerprint
        write_json(temporary / INDEX, {"trained": trained})
