"""What is measured: each variant makes itself ready for a bench, and is then one call."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peers
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hf_noise_al import BADGE, BALD, Acquisition, ActiveTrainer, Candidates, NoiseStability, k_center_greedy
from hf_noise_al.commands.prepare import prepare
from hf_noise_al.observing.observer import Observer
from hf_noise_al.settings.parsing import parse
from hf_noise_al.settings.recipe import InvalidArgument


class Unavailable(Exception):
    """A variant cannot run here; the message says why."""


@dataclass(frozen=True)
class Bench:
    """A model and the rows it is asked about."""

    trainer: ActiveTrainer
    rows: list[int]
    query_size: int
    max_length: int
    dtype: str

    @property
    def model(self) -> nn.Module:
        model: nn.Module = self.trainer.model
        return model

    @property
    def batch_size(self) -> int:
        return int(self.trainer.args.per_device_eval_batch_size)

    @property
    def is_main_process(self) -> bool:
        return bool(self.trainer.is_world_process_zero())

    def observer(self) -> Observer:
        return self.trainer._looking.observer(self.rows)

    def candidates(self) -> Candidates:
        """Return the rows as an acquisition sees them, none of them collated yet."""
        return self.trainer._looking.candidates(self.rows)

    def precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.trainer.args.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def few(self) -> "Bench":
        """Return the same with the few rows that suffice to see whether a variant runs."""
        return replace(self, rows=self.rows[:4], query_size=min(self.query_size, 2))


def prepare_bench(recipe: Path, flags: Sequence[str], size: int, dtype: str, folder: str) -> Bench:
    """Return the model and the first `size` rows of a fixed permutation of the pool; nothing is trained."""
    model, data, training = parse(recipe, ["--disable_tqdm=true", *flags, f"--output_dir={folder}"])
    trainer = prepare(model, data, training).trainer
    pool = len(trainer.data)
    if size > pool:
        raise InvalidArgument(f"`--candidates` is {size}, and {data.dataset_name} has {pool} rows. Lower it.")
    if not 1 <= training.query_size <= size:
        raise InvalidArgument(
            f"Cannot query {training.query_size} of {size} candidates. Lower `--query_size`, or raise `--candidates`."
        )
    trainer.model.to(training.device).eval()
    order = torch.randperm(pool, generator=torch.Generator().manual_seed(0))
    return Bench(trainer, sorted(order[:size].tolist()), training.query_size, data.max_seq_length, dtype)


Variant = Callable[[Bench], Callable[[], object]]


def forward(bench: Bench) -> Callable[[], object]:
    """The unit: one pass over what was collated before."""
    candidates = bench.candidates()
    candidates.observe(candidates.observable)
    return lambda: candidates.observe(candidates.observable)


def acquisition(make: Callable[[], Acquisition]) -> Variant:
    def ready(bench: Bench) -> Callable[[], object]:
        try:
            chosen = make()
        except (TypeError, ValueError) as error:
            raise Unavailable(str(error)) from error
        return lambda: chosen.select(bench.candidates(), bench.query_size, torch.Generator().manual_seed(0))

    return ready


def noise_stability(estimator: str, **settings: Any) -> Variant:
    return acquisition(lambda: NoiseStability(**{"estimator": estimator, **settings}))


def naive(num_perturbations: int, noise_scale: float = 1e-3) -> Variant:
    """The method as published: a deep copy of the model for each perturbation, rows in the order they came in.

    Rows are collated anew at every pass, each batch padded to its longest row; they were tokenized once before.
    """

    def ready(bench: Bench) -> Callable[[], object]:
        observer, observable = bench.observer(), bench.candidates().observable
        loader = DataLoader(observer.dataset, batch_size=bench.batch_size, collate_fn=observer.batches.collate)

        @torch.no_grad()
        def one_pass(model: nn.Module) -> Tensor:
            return torch.cat([observable(model, observer.prepare(batch)).cpu() for batch in loader])

        def query() -> Tensor:
            clean = one_pass(bench.model)
            deviations = []
            for _ in range(num_perturbations):
                noisy = copy.deepcopy(bench.model)
                for module in noisy.modules():
                    weight = getattr(module, "weight", None)
                    if isinstance(weight, Tensor):
                        noise = torch.randn_like(weight)
                        weight.data.add_(noise * (noise_scale * weight.norm() / noise.norm()))
                deviations.append((one_pass(noisy) - clean) / clean.norm(dim=1, keepdim=True))
            return k_center_greedy(torch.cat(deviations, dim=1), bench.query_size)

        return query

    return ready


def peer(make: Callable[[Any], Callable[[], object]]) -> Variant:
    def ready(bench: Bench) -> Callable[[], object]:
        try:
            return make(bench)
        except ModuleNotFoundError as error:
            raise Unavailable(f'{error}: pip install -c constraints.txt -e ".[bench]"') from error

    return ready


VARIANTS: dict[str, Variant] = {
    "forward": forward,
    "finite_difference_30": noise_stability("finite_difference", num_perturbations=30),
    "gradient_sketch_30": noise_stability("gradient_sketch", num_projections=30),
    "gradient_sketch_128": noise_stability("gradient_sketch", num_projections=128),
    "gradient_sketch_512": noise_stability("gradient_sketch", num_projections=512),
    "gradient_sketch_512_one_by_one": noise_stability("gradient_sketch", one_by_one=True),
    "naive_30": naive(30),
    "badge": acquisition(BADGE),
    "bald_20": acquisition(lambda: BALD(num_samples=20)),
    "baal_bald_20": peer(peers.baal_bald),
    "small_text_core_set": peer(peers.small_text_core_set),
    "small_text_badge": peer(peers.small_text_badge),
    "scikit_activeml_core_set": peer(peers.scikit_activeml_core_set),
    "scikit_activeml_badge": peer(peers.scikit_activeml_badge),
}
