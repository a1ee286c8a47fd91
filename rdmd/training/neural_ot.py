"""The objective of neural optimal transport: a map and a potential, trained against each other."""

import torch
from accelerate import Accelerator
from torch import Tensor

from rdmd.baselines.neural_ot import build_potential, build_transport_map, map_loss, potential_loss
from rdmd.data.sampling import StepRandom
from rdmd.data.view import open_domain
from rdmd.distillation.costs import squared_l2
from rdmd.training.objective import DECAYS, EMA, adam, set_lr
from rdmd.training.run_config import NeuralOTRun

PREVIEW = 32


class NeuralOTObjective:
    """sup_f inf_T E w c(x, T(x)) - f(T(x)) + E f(y), x from the source and y from the target (Korotin et al. 2023,
    eq. 15, for a deterministic map; algorithm 1)."""

    def __init__(self, run: NeuralOTRun, accelerator: Accelerator) -> None:
        s = run.settings
        self.settings = s
        self.cost_weight = run.cost_weight
        self.accelerator = accelerator
        self.source = open_domain(run.source.path, "train", accelerator.device)
        self.target = open_domain(run.target.path, "train", accelerator.device)
        transport = build_transport_map(run.network, run.sample_shape).to(accelerator.device)
        potential = build_potential(run.network, run.sample_shape).to(accelerator.device)
        self.ema = EMA(transport, s.ema)
        self.transport, self.potential = accelerator.prepare_model(transport), accelerator.prepare_model(potential)
        self.transport_optimizer = adam(transport, s.map_lr, s.beta1)
        self.potential_optimizer = adam(potential, s.potential_lr, s.beta1)
        self.modules = {"map": transport, "potential": potential}
        self.optimizers = {"map": self.transport_optimizer, "potential": self.potential_optimizer}
        self.per_rank = s.batch // accelerator.num_processes

    def step(self, t: int, random: StepRandom) -> dict[str, Tensor]:
        """`map_steps` steps of the map, each on sources of its own, then one of the potential."""
        remaining = DECAYS[self.settings.decay](t / self.settings.steps)
        set_lr(self.transport_optimizer, self.settings.map_lr * remaining)
        set_lr(self.potential_optimizer, self.settings.potential_lr * remaining)
        # What the map's loss leaves in the potential's gradients would be thrown away.
        self.modules["potential"].requires_grad_(False)
        for k in range(self.settings.map_steps):
            logged = self._map_step(random, k)
        self.modules["potential"].requires_grad_(True)
        logged |= self._potential_step(random)
        self.ema.update(t)
        return logged

    def _map_step(self, random: StepRandom, k: int) -> dict[str, Tensor]:
        x = self.source.batch(self.per_rank, random, f"map source {k}")
        costs: list[Tensor] = []

        def cost(x: Tensor, y: Tensor) -> Tensor:
            costs.append(squared_l2(x, y))
            return self.cost_weight * costs[-1]

        with self.accelerator.autocast():
            loss = map_loss(self.transport, self.modules["potential"], x, cost)
        self.accelerator.backward(loss.mean())
        self.transport_optimizer.step()
        self.transport_optimizer.zero_grad(set_to_none=True)
        return {"map_loss": loss.detach().mean(), "cost": costs[-1].detach().mean()}

    def _potential_step(self, random: StepRandom) -> dict[str, Tensor]:
        x = self.source.batch(self.per_rank, random, "source")
        y = self.target.batch(self.per_rank, random, "target")
        with self.accelerator.autocast():
            loss = potential_loss(self.modules["map"], self.potential, x, y, self.settings.r1)
        self.accelerator.backward(loss.mean())
        self.potential_optimizer.step()
        self.potential_optimizer.zero_grad(set_to_none=True)
        return {"potential_loss": loss.detach().mean()}

    @torch.no_grad()
    def samples(self) -> tuple[Tensor, ...]:
        """Sources and where the averaged map sends them."""
        x = self.source.batch(PREVIEW, StepRandom(0, 0, 0, self.accelerator.device), "preview")
        return x, self.ema.averaged(x)
