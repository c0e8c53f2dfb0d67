"""The weights of a live model, copied into vectors of bytes; tied tensors once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ndt_offline.errors import UsageError
from ndt_offline.graph.models import plain_name
from ndt_offline.run.layout import ITEMSIZE, Layout, Vectors

_HOOKS = ("_state_dict_hooks", "_state_dict_pre_hooks")


class Snapshot:
    """Copies a model's state dict into one flat vector per dtype.

    The model's tensors are collected anew at each copy, because training may replace them; only
    when one is another tensor than before is the state dict itself asked for names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._seen: list[Any] = []
        self._held: list[torch.Tensor] = []
        self._sources: dict[str, list[torch.Tensor]] = {}
        self._parts: dict[int, tuple[Any, list[torch.Tensor]]] = {}
        self._device: dict[str, torch.Tensor] = {}
        self.refresh()

    def refresh(self) -> Layout:
        """The table of the present state; cheap while no tensor was replaced."""
        tensors = _tensors(self.model)
        try:
            seen = [(t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors or []]
        except (RuntimeError, ValueError):  # sparse, or not initialised: the table will say so
            seen = []
        if tensors is None or seen != self._seen or not seen:
            state = state_of(self.model)
            self.layout = layout_of(state)
            self._sources = {dtype: [] for dtype in self.layout.sizes}
            for tensor in self.layout.tensors:
                self._sources[tensor.dtype].append(state[tensor.name])
            self._parts.clear()
            self._device.clear()
            # Held: an address is not given to another tensor while we compare by it.
            self._seen, self._held = seen, tensors or []
        return self.layout

    @property
    def device(self) -> torch.device | None:
        """The accelerator the weights are on; None for the CPU."""
        found = {t.device for ts in self._sources.values() for t in ts if t.device.type != "cpu"}
        return found.pop() if len(found) == 1 else None

    def copy_to(self, vectors: Vectors) -> None:
        """The present state into vectors of the table that `refresh` gave.

        From an accelerator: gathered there, then one copy per dtype that this does not wait for.
        """
        for dtype, vector in vectors.items():
            if not len(vector):
                continue
            sources = [s for s in self._sources[dtype] if s.numel()]
            if all(s.device.type == "cpu" for s in sources):
                torch._foreach_copy_(self._views(vector, dtype), sources)
            elif self.device is not None:
                kind = sources[0].dtype
                flat = self._device.setdefault(
                    dtype, torch.empty(len(vector) // kind.itemsize, dtype=kind, device=self.device)
                )
                torch._foreach_copy_(_split(flat, sources), sources)
                torch.from_numpy(vector).view(kind).copy_(flat, non_blocking=True)
            else:  # several devices: one after the other
                for view, source in zip(self._views(vector, dtype), sources, strict=True):
                    view.copy_(source)

    def take(self) -> tuple[Layout, Vectors]:
        """The present state in vectors of its own."""
        layout = self.refresh()
        flat = {
            dtype: torch.empty(size // ITEMSIZE[dtype], dtype=getattr(torch, dtype))
            for dtype, size in layout.sizes.items()
        }
        vectors = {dtype: tensor.view(torch.uint8).numpy() for dtype, tensor in flat.items()}
        self.copy_to(vectors)
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        for vector in vectors.values():  # the ring's views are kept, these are used once
            self._parts.pop(id(vector), None)
        return layout, vectors

    def _views(self, vector: Any, dtype: str) -> list[torch.Tensor]:
        kept = self._parts.get(id(vector))
        if kept is None or kept[0] is not vector:
            sources = [s for s in self._sources[dtype] if s.numel()]
            views = _split(torch.from_numpy(vector).view(sources[0].dtype), sources)
            self._parts[id(vector)] = kept = (vector, views)
        return kept[1]


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor of the state dict by its plain name; other entries are not weights."""
    return {
        plain_name(name): value if is_lazy(value) else value.detach()
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def layout_of(state: dict[str, torch.Tensor]) -> Layout:
    """The table of a state dict; tensors that share memory element for element are stored once."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[object, ...], str] = {}
    for name in sorted(state):
        tensor = state[name]
        if is_lazy(tensor):
            raise UsageError(
                f"tensor {name!r} is not initialised",
                remedy="run the model once on a batch before it is recorded",
            )
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided or tensor.is_quantized or dtype not in ITEMSIZE:
            raise UsageError(
                f"tensor {name!r} is {tensor.layout} of {tensor.dtype}; it cannot be recorded",
                remedy="register it with persistent=False, or record the float model",
            )
        same = (tensor.data_ptr(), dtype, tuple(tensor.shape), tensor.stride(), tensor.device)
        if tensor.numel() and tensor.data_ptr() and same in seen:
            aliases[name] = seen[same]
            continue
        seen[same] = name
        shapes[name] = (dtype, tuple(tensor.shape))
    return Layout.of(shapes, aliases)


def _tensors(model: nn.Module) -> list[torch.Tensor] | None:
    """Parameters and persistent buffers as they hang in the modules; None: only state_dict knows.

    Cheaper than `state_dict()`, which makes names and metadata and calls hooks.
    """
    found: list[torch.Tensor] = []
    for inside in _insides(model):
        if any(inside.get(hook) for hook in _HOOKS):
            return None
        found += [p for p in inside["_parameters"].values() if p is not None]
        skipped = inside["_non_persistent_buffers_set"]
        buffers = inside["_buffers"]
        found += [b for name, b in buffers.items() if b is not None and name not in skipped]
    return found


def _insides(model: nn.Module) -> Iterator[dict[str, Any]]:
    stack = [model]
    while stack:
        module = stack.pop()
        kind = type(module)
        if (
            kind.state_dict is not nn.Module.state_dict
            or kind._save_to_state_dict is not nn.Module._save_to_state_dict
            or kind.get_extra_state is not nn.Module.get_extra_state
        ):
            yield {_HOOKS[0]: True}
            return
        inside = module.__dict__
        yield inside
        stack += [child for child in inside["_modules"].values() if child is not None]


def _split(flat: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]:
    parts = torch.split(flat, [t.numel() for t in like])
    return [part.view(t.shape) for part, t in zip(parts, like, strict=True)]
