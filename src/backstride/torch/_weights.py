# SPDX-License-Identifier: Apache-2.0
"""The weight that a layer computes with, and whether a packed copy of it is worth keeping.

In evaluation a weight is a constant, unless it is written to. One that is computed from other tensors, as weight
normalization does, is computed once, and again when these were written to.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.weight_norm import WeightNorm

from backstride._backends.torch_operators import forget as forget_packed
from backstride._backends.torch_operators import state


class _Computed(NamedTuple):
    """A weight, and what it was computed from; the memory is held, so that nothing else can be in its place."""

    weight: Tensor
    sources: list[Tensor]
    states: list[tuple[Any, ...]]
    memory: list[torch.UntypedStorage]


_computed: WeakKeyDictionary[nn.Module, _Computed] = WeakKeyDictionary()


def constant_weight(module: Any) -> tuple[Tensor, bool]:
    """The weight of a layer, and whether it is the same tensor in every call."""
    own = module._parameters.get("weight")
    sources = [own] if own is not None else _sources(module)
    changing = module.training or not sources or (torch.is_grad_enabled() and any(x.requires_grad for x in sources))
    if own is not None or _is_traced():
        return module.weight, own is not None and not changing
    if changing or any(x.is_inference() for x in sources):
        _computed.pop(module, None)  # fused optimizers write without a new version
        return module.weight, False
    states = [state(x) for x in sources]
    kept = _computed.get(module)
    if kept is None or kept.states != states or any(x is not y for x, y in zip(kept.sources, sources, strict=True)):
        with torch.inference_mode(False), torch.no_grad():
            weight, memory = module.weight.detach().clone(), [x.untyped_storage() for x in sources]
        kept = _computed[module] = _Computed(weight, sources, states, memory)
    return kept.weight, True


def forget(module: nn.Module) -> None:
    """Lets go of what is kept of a layer's weight."""
    _computed.pop(module, None)
    if isinstance(weight := module._parameters.get("weight"), Tensor):
        forget_packed(weight)


def _sources(module: Any) -> list[Tensor]:
    """The tensors from which PyTorch's own parametrizations compute a weight; none if others do."""
    if parametrize.is_parametrized(module, "weight"):
        chain = module.parametrizations["weight"]
        if all(type(each).__module__ == parametrizations.__name__ for each in chain):
            return [*chain.parameters(), *chain.buffers()]
    hooks = module._forward_pre_hooks.values()
    if any(isinstance(hook, WeightNorm) and hook.name == "weight" for hook in hooks):
        return [module.get_parameter("weight_g"), module.get_parameter("weight_v")]
    return []


def _is_traced() -> bool:
    """Whether tensors may stand for others."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )
