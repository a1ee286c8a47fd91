"""The model registry: what travels in a registered model, its versions, and which of them is the champion."""
