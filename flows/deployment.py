"""The deployment `reproduce/project` of this folder: `python -m flows.deployment` serves it until Ctrl-C.

It needs a server, which PREFECT_API_URL names. A team declares the same in `prefect.yaml`.
"""

import os
import warnings

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.flows import EntrypointType

from flows.reproduce import reproduce
from flows.server import API, wait_for_api
from rdmd.errors import UserError, reporting

NAME = "project"


def main() -> None:
    """Make the deployment and execute its scheduled runs, one at a time."""
    if not os.environ.get(API):
        raise UserError(f"{API} names no Prefect server for the deployment; run `make ui`, or set it.")
    wait_for_api()
    # Prefect 3.8 does not await it when SIGTERM ends the runner; the runs end all the same.
    warnings.filterwarnings("ignore", message="coroutine 'Runner.astop' was never awaited")
    reproduce.serve(
        name=NAME,
        description=reproduce.__doc__,
        # The others wait, since runs share params.yaml.
        limit=1,
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
        # A path would load the file under another module's name.
        entrypoint_type=EntrypointType.MODULE_PATH,
        pause_on_shutdown=False,
        print_starting_message=False,
    )


if __name__ == "__main__":
    with reporting(debug=False):
        main()
