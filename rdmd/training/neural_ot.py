"""The objective of neural optimal transport: a map and a potential, trained against each other."""

import torch
from accelerate import Accelerator
from torch import Tensor

from rdmd.baselines.neural_ot import build_potential, build_transport_map, map_loss, potential_loss
from rdmd.data.sampling import StepRandom
from rdmd.data.view import open_domain
from rdmd.distillation.costs import squared_l2
from rdmd.training.objective import PREVIEW, Objective
from rdmd.training.run_config import NeuralOTRun


class NeuralOTObjective(Objective):
    """sup_f inf_T E w c(x, T(x)) - f(T(x)) + E f(y), x from the source and y from the target (Korotin et al. 2023,
    eq. 15, for a deterministic map; algorithm 1)."""

    def __init__(self, run: NeuralOTRun, accelerator: Accelerator) -> None:
        s = self.settings = run.settings
        super().__init__(run, accelerator, decay=s.decay)
        self.cost_weight = run.cost_weight
        self.source = open_domain(run.source.path, "train", accelerator.device)
        self.target = open_domain(run.target.path, "train", accelerator.device)
        transport = build_transport_map(run.network, run.sample_shape)
        potential = build_potential(run.network, run.sample_shape)
        self.T = self.trained("map", transport, lr=s.map_lr, beta1=s.beta1, ema=s.ema)
        self.f = self.trained("potential", potential, lr=s.potential_lr, beta1=s.beta1)
        # The opponent in each loss: without the wrapper that averages gradients over processes.
        self.fixed_T, self.fixed_f = self.compute.call(transport), self.compute.call(potential)

    def update(self, random: StepRandom) -> dict[str, Tensor]:
        """`map_steps` steps of the map, each on new sources, then one of the potential."""
        # The map's loss needs no gradient with respect to the potential's weights.
        self.modules["potential"].requires_grad_(False)
        for k in range(self.settings.map_steps):
            logged = self._map_step(random, k)
        self.modules["potential"].requires_grad_(True)
        return logged | self._potential_step(random)

    def _map_step(self, random: StepRandom, k: int) -> dict[str, Tensor]:
        x = self.source.batch(self.batch_size, random, f"map source {k}")
        mapped = self.T(x)
        cost = squared_l2(x, mapped)
        loss = map_loss(self.fixed_f, mapped, self.cost_weight * cost)
        loss.mean().backward()
        self.apply_gradients("map")
        return {"map_loss": loss.detach().mean(), "cost": cost.detach().mean()}

    def _potential_step(self, random: StepRandom) -> dict[str, Tensor]:
        x = self.source.batch(self.batch_size, random, "source")
        y = self.target.batch(self.batch_size, random, "target")
        loss = potential_loss(self.fixed_T, self.f, x, y, self.settings.r1)
        loss.mean().backward()
        self.apply_gradients("potential")
        return {"potential_loss": loss.detach().mean()}

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Sources and the averaged map's outputs for them."""
        x = self.source.batch(PREVIEW, StepRandom(0, 0, 0, self.device), "preview")
        return x, self.ema.averaged(x)
