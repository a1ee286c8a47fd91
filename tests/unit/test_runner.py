"""`launch.runner` in params.yaml: what it may be, and how a wrong one is refused."""

from pathlib import Path

import pytest

from rdmd import config
from rdmd.errors import UserError
from tests.conftest import params


@pytest.mark.parametrize(("runner", "said"), [
    ("dask", "use one of local, ray"),
    ({"name": "ray", "adress": "head:6379"}, "did you mean `address`"),
    ({"name": "ray", "address": "ray://head:10001"}, "join it"),
    ({"name": "ray", "project": "shared/rdmd"}, "'shared/rdmd' is relative; give the absolute path"),
])  # fmt: skip
def test_a_runner_that_cannot_be_is_refused(runner: object, said: str):
    with pytest.raises(UserError, match=said):
        config.parse(params("swissroll", lambda settings: settings["launch"].update(runner=runner)), "params.yaml")


def test_the_runner_is_this_machine_unless_it_is_named():
    assert config.Launch().runner == config.LocalRunner(name="local")
    assert config.Launch(runner="ray").runner == config.RayRunner(name="ray", address="auto", project=None)
    shared = {"name": "ray", "project": "/shared/rdmd"}
    assert config.Launch(runner=shared).runner.project == Path("/shared/rdmd")
