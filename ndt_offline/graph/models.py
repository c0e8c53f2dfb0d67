"""Getting at the plain model: out of its wrappers, copied to the CPU, in eval mode, unharmed."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import RefusedError, UsageError
from ndt_offline.extension import told

if TYPE_CHECKING:
    import torch

_WRAPPERS = ("DataParallel", "DistributedDataParallel")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")
# Pre-hooks that compute a weight: without them the module would use a stale copy of it.
_WEIGHT_HOOKS = "torch.nn.utils."


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside torch.compile, DataParallel and DistributedDataParallel, in any order."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        elif type(model).__name__ in _WRAPPERS and hasattr(model, "module"):
            model = model.module  # type: ignore[assignment]
        else:
            return model


def plain_name(name: str) -> str:
    """A parameter's name without torch.compile's `_orig_mod`, wherever a submodule was compiled."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def refuse_sharded(model: torch.nn.Module) -> None:
    """RefusedError for parameters of which this process holds only a part (FSDP, DTensor)."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        kinds = {kind.__name__ for kind in type(tensor).__mro__}
        if kinds & {"DTensor", "ShardedTensor", "FlatParameter"}:
            raise RefusedError(
                f"parameter {name} is sharded ({type(tensor).__name__}): this process has a part",
                remedy="record from a full state dict, or with DistributedDataParallel",
            )
    for path, module in model.named_modules():
        if type(module).__name__ == "FullyShardedDataParallel":
            raise RefusedError(
                f"module {path or '(the model)'} is wrapped in FullyShardedDataParallel",
                remedy="record from a full state dict, or with DistributedDataParallel",
            )


def frozen_copy(model: torch.nn.Module) -> torch.nn.Module | None:
    """A deep copy on the CPU in eval mode without hooks; None where it cannot be copied.

    Parameters are copied straight to the CPU: the device never holds them twice.
    """
    memo: dict[int, Any] = {}
    try:
        for module in model.modules():
            for tensor in _own_tensors(module):
                memo.setdefault(id(tensor), _on_cpu(tensor))
        twin = copy.deepcopy(model, memo)
    except Exception:  # a model may hold anything: locks, files, generators
        return None
    for module in twin.modules():
        _clear_hooks(module)
    return _without_compiled(twin).eval()


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside; every flag and the random state as before afterwards."""
    import torch

    flags = [(module, module.training) for module in model.modules()]
    wanting = [p for p in model.parameters() if p.requires_grad]
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(d for d in devices if d is not None)):
        fused = torch.backends.mha.get_fastpath_enabled()
        try:
            model.eval()
            # Eval mode alone would switch to fused kernels that training never runs.
            torch.backends.mha.set_fastpath_enabled(False)
            # Even without gradients torch picks other kernels for weights that could have one;
            # those of a checkpoint cannot.
            for parameter in wanting:
                parameter.requires_grad_(False)
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
            for parameter in wanting:
                parameter.requires_grad_(True)
            for module, flag in flags:
                module.training = flag


def load_factory(spec: str) -> torch.nn.Module:
    """The model that `package.module:factory` returns; the factory is called without arguments.

    Runs the user's own code, named by the user on the command line, never by a run.
    """
    if not _FACTORY.match(spec):
        raise UsageError(f"--model {spec!r} is not of the form package.module:factory")
    module_name, _, name = spec.partition(":")
    factory = getattr(_module(module_name, spec), name, None)
    if not callable(factory):
        raise UsageError(f"--model {spec}: {module_name} has no function {name}")
    try:
        model = factory()
    except Exception as error:
        raise UsageError(f"--model {spec}: {told(error)}") from error
    import torch

    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"--model {spec} returned {type(model).__name__}, not a torch.nn.Module")
    return unwrap(model)


def _module(name: str, spec: str) -> Any:
    # A script's own directory is on the path, that of an installed command's caller is not.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--model {spec}: no module {error.name}",
            remedy="run it from the folder that holds the module, or set PYTHONPATH",
        ) from error
    except Exception as error:
        raise UsageError(f"--model {spec}: {told(error)}") from error


def _own_tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    import torch

    yield from (p for p in module._parameters.values() if p is not None)
    yield from (b for b in module._buffers.values() if b is not None)
    # torch.nn.utils.weight_norm leaves a computed `weight`, which deepcopy refuses.
    yield from (t for t in vars(module).values() if isinstance(t, torch.Tensor))


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    plain = tensor.detach().to("cpu", copy=True)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(plain, requires_grad=tensor.requires_grad)
    return plain


def _clear_hooks(module: torch.nn.Module) -> None:
    for name in ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks"):
        getattr(module, name, {}).clear()
    hooks = module._forward_pre_hooks
    for key in [k for k, hook in hooks.items() if not _computes_weight(hook)]:
        del hooks[key]


def _computes_weight(hook: Any) -> bool:
    return type(hook).__module__.startswith(_WEIGHT_HOOKS)


def _without_compiled(model: torch.nn.Module) -> torch.nn.Module:
    for module in model.modules():
        for name, child in module._modules.items():
            if child is not None and hasattr(child, "_orig_mod"):
                module._modules[name] = unwrap(child)
        module._compiled_call_impl = None
    return model
