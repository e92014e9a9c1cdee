"""Which perturbed tensors the gradient sketch can follow, and how: through their modules, or by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from ..parameter_filter import perturbed_tensors
from .layer_rules import why_unsupported
from .layer_taps import UnsupportedModuleError
from .weight_use import Held


class Followed:
    """The perturbed tensors of a model: where each of them is looked for.

    Args:
        model: The model.
        tensors: The perturbed ones, by name.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        names = {id(tensor): name for name, tensor in tensors.items()}
        held = [(module, _names_held(module, names)) for module in model.modules()]
        self.tapped: Held = [(module, known) for module, known in held if known]
        """Modules whose outputs are tapped, with their tensors."""
        self.direct: dict[str, Tensor] = {}
        """Tensors that are differentiated themselves; the outputs of their modules are not tapped for them."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that the taps see, by name."""
        return {name: module.get_parameter(p) for module, known in self.tapped for p, name in known.items()}

    def take_directly(self, names: Iterable[str]) -> None:
        """Differentiate the tensors called `names` themselves."""
        tensors = self.tensors()
        self.direct.update({name: tensors[name] for name in names})
        left = [(module, {p: n for p, n in known.items() if n not in self.direct}) for module, known in self.tapped]
        self.tapped = [(module, known) for module, known in left if known]


def without_rule(model: nn.Module, parameter_filter: str = "weight") -> dict[str, str]:
    """Return the names of perturbed tensors that are held by a module without a rule for them, each with the reason."""
    names = {id(tensor): name for name, tensor in perturbed_tensors(model, parameter_filter).items()}
    reasons: dict[str, str] = {}
    for module in model.modules():
        for parameter, name in _names_held(module, names).items():
            if why := why_unsupported(module, parameter):
                reasons[name] = why
    return reasons


def unsupported_tensors(model: nn.Module, parameter_filter: str = "weight") -> list[str]:
    """Name the perturbed tensors of `model` that the gradient sketch cannot project, each with the reason."""
    return [f"{name} ({why})" for name, why in without_rule(model, parameter_filter).items()]


def refuse_unsupported_tensors(model: nn.Module, parameter_filter: str) -> None:
    """Raise UnsupportedModuleError where `unsupported_tensors` names any."""
    if unsupported := unsupported_tensors(model, parameter_filter):
        raise UnsupportedModuleError(
            f"The gradient sketch has no rule for {len(unsupported)} of the perturbed tensors: "
            f"{', '.join(unsupported[:5])}{', ...' if len(unsupported) > 5 else ''}. "
            "Use one_by_one=True or estimator='finite_difference', or leave them out by `parameter_filter`."
        )


def refuse_one_by_one_of_shards(sharded: bool) -> None:
    """Raise UnsupportedModuleError where weights are `sharded`: each pass of an example would need every process."""
    if sharded:
        raise UnsupportedModuleError(
            "The gradient sketch cannot take examples one by one where weights are sharded: processes would need as "
            "many passes as the one with most. Use one_by_one=False, estimator='finite_difference' or "
            "DistributedDataParallel."
        )


def _names_held(module: nn.Module, names: dict[int, str]) -> dict[str, str]:
    return {p: names[id(t)] for p, t in module._parameters.items() if t is not None and id(t) in names}
