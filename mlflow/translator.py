"""The served model, as code: MLflow runs this file next to a model's folder (`model.json`, `model.safetensors`).

No pickles: the weights are safetensors, this file is stored as it is, and so are the modules of `rdmd` that it imports.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from rdmd.errors import UserError
from rdmd.pipeline.model_card import read_card
from rdmd.serving.images import Sizing
from rdmd.serving.model import open_folder
from rdmd.serving.request import RequestError, answer
from rdmd.serving.threads import set_threads
from rdmd.serving.watch import Watch

# MLflow says at every start that it does not check samples which are texts or arrays; `answer` does.
logging.getLogger("mlflow.types.type_hints").setLevel(logging.ERROR)


class BadRequest(MlflowException):
    """HTTP 400 with one sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    def serialize_as_json(self) -> str:
        """The body of the answer: the sentence without the whole request, which MLflow's server has put before it."""
        (self.message,) = self.args
        return super().serialize_as_json()


class Translator(PythonModel):
    """One-step translation. Request and answer are base64 texts, arrays (N, H, W, 3), or points (N, d).

    Every image keeps its size. The inference parameter `lambda` is the weight of the transport cost, within the range
    that the generator takes; by default that of the registered version. `keep_detail` adds the detail of the source
    that the network's resolution cannot hold.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Build the generator from the artifact `model`."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folder = Path(context.artifacts["model"])
        source = read_card(folder).source
        self.model = replace(open_folder(folder, device), watch=Watch(source) if source else None)
        set_threads(self.model)

    def predict(
        self, model_input: list[str | list], params: dict[str, Any] | None = None
    ) -> list[str] | list[list] | np.ndarray:
        """Translate a batch. Raises BadRequest where the request is wrong."""
        params = params or {}
        try:
            sizing = Sizing(keep_detail=params.get("keep_detail", False))
            return answer(self.model.at(params.get("lambda")), model_input, sizing)
        except (RequestError, UserError) as error:
            raise BadRequest(str(error)) from None


def accept_arrays(predict: Callable) -> Callable:
    """Accept NumPy arrays, which MLflow's check of the type hint refuses; refuse in a sentence what is no list."""

    @functools.wraps(predict)
    def checked(self: Translator, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        if isinstance(model_input, np.ndarray) and model_input.ndim:
            return predict(self, list(model_input), params)
        if not isinstance(model_input, list | pd.DataFrame):
            raise BadRequest("`inputs` is not a list; send a list of samples.")
        return predict(self, model_input, params)

    return checked


# MLflow wraps `predict` in its check when the class is made.
Translator.predict = accept_arrays(Translator.predict)
mlflow.models.set_model(Translator())
