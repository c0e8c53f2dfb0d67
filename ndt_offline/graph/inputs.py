"""How a batch is passed to a model, and which tensor of the answer counts as the output."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import UsageError

if TYPE_CHECKING:
    import torch


def structure(inputs: Any) -> str:
    """`tensor`, `tuple` or `dict`; UsageError for anything else."""
    if hasattr(inputs, "shape") and hasattr(inputs, "dtype"):
        return "tensor"
    if isinstance(inputs, (tuple, list)) and inputs:
        return "tuple"
    if isinstance(inputs, Mapping) and inputs:
        return "dict"
    raise UsageError(
        f"inputs are {type(inputs).__name__}; a tensor, a tuple or a dict of tensors is needed"
    )


def flatten(inputs: Any, names: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """Tensors by name: `x`, or `x.0`, `x.1`, ... of a tuple, or `x.key` of a dict.

    A dict whose keys are already such `names` is taken as it is.
    """
    kind = structure(inputs)
    if kind == "tensor":
        return {"x": inputs}
    if kind == "tuple":
        flat = {f"x.{index}": tensor for index, tensor in enumerate(inputs)}
    elif set(inputs) == set(names):
        flat = dict(inputs)
    else:
        flat = {f"x.{key}": tensor for key, tensor in inputs.items() if tensor is not None}
    for name, tensor in flat.items():
        if not (hasattr(tensor, "shape") and hasattr(tensor, "dtype")):
            raise UsageError(f"input {name} is {type(tensor).__name__}, not a tensor")
    return flat


def rebuild(flat: Mapping[str, torch.Tensor], kind: str) -> Any:
    """The inverse of `flatten`: the batch in the shape the model takes."""
    if kind == "tensor":
        return flat["x"]
    if kind == "tuple":
        return tuple(flat[f"x.{index}"] for index in range(len(flat)))
    return {name.removeprefix("x."): tensor for name, tensor in flat.items()}


def call_model(model: Any, inputs: Any) -> Any:
    """`model(x)`, `model(*x)` or `model(**x)`; a dict that forward's arguments do not name, whole.

    The recorder, the export and the comparison with the live model all call it this way.
    """
    kind = structure(inputs)
    if kind == "tensor":
        return model(inputs)
    if kind == "tuple":
        return model(*inputs)
    given = {str(key): value for key, value in inputs.items()}
    return model(**given) if _accepts(model, given) else model(inputs)


def pick(answer: Any, output: str | int | None = None) -> torch.Tensor:
    """The tensor that counts: `answer` itself, else `.logits`, else its first tensor.

    `output` names another: a key, attribute or index of the answer.
    """
    if output is not None:
        return _named(answer, output)
    if not is_tensor(answer):
        logits = answer.get("logits") if isinstance(answer, Mapping) else None
        logits = logits if logits is not None else getattr(answer, "logits", None)
        answer = logits if is_tensor(logits) else first_tensor(answer)
    if answer is None:
        raise UsageError("the model returns no tensor", remedy="output= names the one to use")
    return answer


def first_tensor(answer: Any) -> torch.Tensor | None:
    """The first tensor in nested tuples, lists and dicts, depth first; None without one."""
    if is_tensor(answer):
        return answer
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    elif hasattr(answer, "__dataclass_fields__"):
        answer = [getattr(answer, name) for name in answer.__dataclass_fields__]
    if isinstance(answer, (tuple, list)):
        for item in answer:
            tensor = first_tensor(item)
            if tensor is not None:
                return tensor
    return None


def is_tensor(thing: Any) -> bool:
    """Whether a thing is a torch tensor (torch must be loaded by whoever made it)."""
    import torch

    return isinstance(thing, torch.Tensor)


def _named(answer: Any, output: str | int) -> torch.Tensor:
    try:
        by_key = isinstance(answer, Mapping) or isinstance(output, int)
        tensor = answer[output] if by_key else getattr(answer, str(output))
    except (KeyError, IndexError, AttributeError, TypeError):
        tensor = None
    if not is_tensor(tensor):
        raise UsageError(f"the model's answer has no tensor {output!r}")
    return tensor


def _accepts(model: Any, given: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(**given)
    except (TypeError, ValueError):
        return False
    return True
