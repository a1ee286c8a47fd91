"""The stage that trains what baselines need beyond the teacher, and puts it under models/baselines."""

from concurrent.futures import ThreadPoolExecutor, wait

from rdmd import config
from rdmd.files import replacing_folder, write_json
from rdmd.pipeline.launch import TrainingProcesses
from rdmd.pipeline.layout import Layout
from rdmd.pipeline.model_card import write_model
from rdmd.pipeline.plan import plan_baselines
from rdmd.pipeline.training import SlotPool, Watch, card_of, train_one
from rdmd.training.folder import RunFolder
from rdmd.training.spec import run_name

INDEX = "baselines.json"


def train_baselines(
    settings: config.Settings, layout: Layout, watch: Watch, processes: TrainingProcesses
) -> list[RunFolder]:
    """Train (or reuse) what the configured baselines need, as many runs at once as there are slots, and publish it."""
    runs = plan_baselines(settings, layout)
    folders = []
    if runs:
        pool = SlotPool(settings.launch)
        with ThreadPoolExecutor(max_workers=pool.size) as executor:
            futures = [executor.submit(train_one, run, layout, pool, watch, processes) for run in runs]
            try:
                wait(futures)
            except BaseException:
                processes.stop_all()
                raise
        folders = [future.result() for future in futures]
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
