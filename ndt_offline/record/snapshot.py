"""The weights of a live model, copied into vectors of bytes; tied tensors once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ndt_offline.errors import UsageError
from ndt_offline.graph.models import plain_name
from ndt_offline.run.layout import ITEMSIZE, Bytes, Layout, Vectors

_HOOKS = ("_state_dict_hooks", "_state_dict_pre_hooks")


class Snapshot:
    """Copies a model's state dict into one flat vector per dtype.

    The model's tensors are collected anew at each copy, because training may replace them; only
    when one is another tensor than before is the state dict itself asked for names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._parameters: list[torch.Tensor] = []
        self._seen: list[Any] = []
        self._held: list[torch.Tensor] = []
        self._sources: dict[str, list[torch.Tensor]] = {}
        self._parts: dict[int, tuple[Any, list[torch.Tensor]]] = {}
        self._gathered: dict[str, tuple[torch.Tensor, list[torch.Tensor]]] = {}
        self._places: set[torch.device] = set()
        self._near: dict[str, list[Bytes]] = {}
        self.refresh()

    def refresh(self) -> Layout:
        """The table of the present state; cheap while no tensor was replaced."""
        tensors, self._parameters, names = _tensors(self.model)
        try:
            places = [(t.data_ptr(), t.dtype, t.shape, t.stride(), _lazily(t)) for t in tensors]
        except (RuntimeError, ValueError):  # sparse, or not initialised: the table will say so
            places = []
        seen: list[Any] = [*places, names] if places else []
        if seen != self._seen or not seen:
            state = state_of(self.model)
            self.layout = layout_of(state)
            self._sources = {dtype: [] for dtype in self.layout.sizes}
            for tensor in self.layout.tensors:
                if tensor.nbytes:
                    self._sources[tensor.dtype].append(state[tensor.name])
            self._places = {s.device for sources in self._sources.values() for s in sources}
            self._near = {dtype: _bytes(sources) for dtype, sources in self._sources.items()}
            self._parts.clear()
            self._gathered.clear()
            # Held: an address is not given to another tensor while we compare by it.
            self._seen, self._held = seen, tensors
        return self.layout

    def parameters(self) -> Iterable[torch.Tensor]:
        """The model's parameters, as the last `refresh` found them."""
        return dict.fromkeys(self._parameters) or self.model.parameters()

    @property
    def device(self) -> torch.device | None:
        """The accelerator the weights are on; None for the CPU, and where there are several."""
        found = [place for place in self._places if place.type != "cpu"]
        return found[0] if len(found) == 1 else None

    def copy_to(self, vectors: Vectors) -> None:
        """The present state into vectors of the table that `refresh` gave.

        From an accelerator: gathered there, then one copy per dtype that this does not wait for.
        """
        for dtype, vector in vectors.items():
            sources = self._sources[dtype]
            if not sources:
                continue
            if near := self._near[dtype]:
                # Plain copies: past the caches torch's own take twice as long.
                at = 0
                for part in near:
                    vector[at : (at := at + len(part))] = part
            elif self.device is None:  # the CPU, or several devices one after the other
                torch._foreach_copy_(self._views(vector, dtype), sources)
            else:
                flat, parts = self._flat(dtype, sources)
                torch._foreach_copy_(parts, sources)
                torch.from_numpy(vector).view(flat.dtype).copy_(flat, non_blocking=True)

    def take(self, into: Vectors | None = None) -> tuple[Layout, Vectors]:
        """The present state in vectors of its own, or in those of an earlier `take`."""
        layout = self.refresh()
        vectors = into or {}
        if not into or {dtype: len(vector) for dtype, vector in into.items()} != layout.sizes:
            flat = {
                dtype: torch.empty(size // ITEMSIZE[dtype], dtype=getattr(torch, dtype))
                for dtype, size in layout.sizes.items()
            }
            vectors = {dtype: tensor.view(torch.uint8).numpy() for dtype, tensor in flat.items()}
        self.copy_to(vectors)
        if self.device is not None and self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        if vectors is not into:  # the ring's views are kept, these are used once
            for vector in vectors.values():
                self._parts.pop(id(vector), None)
        return layout, vectors

    def _flat(
        self, dtype: str, sources: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One vector on the accelerator, and its parts by tensor."""
        if dtype not in self._gathered:
            count = sum(s.numel() for s in sources)
            flat = torch.empty(count, dtype=sources[0].dtype, device=self.device)
            self._gathered[dtype] = flat, _split(flat, sources)
        return self._gathered[dtype]

    def _views(self, vector: Any, dtype: str) -> list[torch.Tensor]:
        kept = self._parts.get(id(vector))
        if kept is None or kept[0] is not vector:
            sources = self._sources[dtype]
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
        place = tensor.data_ptr(), tensor.stride(), tensor.device
        same = (*place, dtype, tuple(tensor.shape), _lazily(tensor))
        if tensor.numel() and tensor.data_ptr() and same in seen:
            aliases[name] = seen[same]
            continue
        seen[same] = name
        shapes[name] = (dtype, tuple(tensor.shape))
    return Layout.of(shapes, aliases)


def _lazily(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Whether the values are those in memory conjugated, or negated."""
    return tensor.is_conj(), tensor.is_neg()


def _tensors(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor], list[str]]:
    """Parameters and persistent buffers as they hang in the modules, the parameters alone, and
    the names of everything on the way.

    Cheaper than `state_dict()`, which makes names and metadata and calls hooks; nothing where only
    `state_dict()` knows.
    """
    parameters: list[torch.Tensor] = []
    buffers: list[torch.Tensor] = []
    names: list[str] = []
    stack = [model]
    while stack:
        module = stack.pop()
        inside = module.__dict__
        kind: Any = type(module)
        if not _is_plain(kind) or any(inside.get(hook) for hook in _HOOKS):
            return [], [], []
        parameters += [p for p in inside["_parameters"].values() if p is not None]
        names += inside["_parameters"]
        names += inside["_modules"]
        if inside["_buffers"]:
            names += inside["_buffers"]
            skipped = inside["_non_persistent_buffers_set"]
            held = inside["_buffers"].items()
            buffers += [b for name, b in held if b is not None and name not in skipped]
        stack += [child for child in inside["_modules"].values() if child is not None]
    return parameters + buffers, parameters, names


@cache
def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether modules of this class say in their state dict what hangs in them, no more."""
    return (
        kind.state_dict is nn.Module.state_dict
        and kind._save_to_state_dict is nn.Module._save_to_state_dict
        and kind.get_extra_state is nn.Module.get_extra_state
    )


def _bytes(sources: list[torch.Tensor]) -> list[Bytes]:
    """The memory of tensors on the CPU, element for element; empty where one has no such."""
    try:
        if all(s.device.type == "cpu" and s.is_contiguous() for s in sources):
            return [s.reshape(-1).view(torch.uint8).numpy() for s in sources]
    except (RuntimeError, TypeError):  # conjugated lazily, of a class of its own
        pass
    return []


def _split(flat: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]:
    parts = torch.split(flat, [t.numel() for t in like])
    return [part.view(t.shape) for part, t in zip(parts, like, strict=True)]
