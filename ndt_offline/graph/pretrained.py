"""A model made from the `config.json` beside checkpoints of Hugging Face.

The class that `architectures` names is looked up in the installed `transformers` package and
nowhere else: no code of the folder, none from the network, no weights. What a configuration could
ask for beyond numbers and known names is refused by name.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndt_offline.errors import DamagedError, NdtError, RefusedError, UsageError
from ndt_offline.graph.guards import physical_memory
from ndt_offline.storage.regular import read_regular

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
MAX_CONFIG, MAX_NUMBER, MAX_LAYERS = 2**20, 10**8, 4096
REMEDY = "--model package.module:factory"
_CLASS = re.compile(r"[A-Z][A-Za-z0-9_]{1,100}", re.ASCII)
# What would load code, kernels or weights from elsewhere.
_REFUSED = ("auto_map", "custom_pipelines", "quantization_config", "use_pretrained_backbone",
            "use_kernels", "use_timm_backbone")  # fmt: skip
# Of a training or an older version; none of them changes the forward pass in eval mode.
_DROPPED = ("attn_implementation", "experts_implementation", "torch_dtype", "dtype",
            "transformers_version", "use_cache")  # fmt: skip
_COUNTS = ("layers", "n_layer", "depth", "experts", "blocks")  # in names of what is repeated


def model_of_config(path: Path) -> torch.nn.Module:
    """The model, with weights as they are initialised, in eval mode.

    Raises RefusedError for what may not be asked, DamagedError for what is no configuration,
    UsageError where transformers is missing or has no such class.
    """
    body = _body(path)
    try:
        named = body.get("architectures")
        if not isinstance(named, list) or len(named) != 1 or not _CLASS.fullmatch(str(named[0])):
            raise RefusedError(f"architectures {str(named)[:80]!r}: the name of one class")
        _check(body)
        with _offline() as transformers:
            return _made(transformers, str(named[0]), body).eval()
    except NdtError as error:
        raise error.at(path=path, remedy=REMEDY) from None
    except Exception as error:  # a configuration can fail anywhere in a model
        what = f"makes no model: {type(error).__name__}: {str(error)[:200]}"
        raise RefusedError(what, path=path, remedy=REMEDY) from None


def _body(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(read_regular(path, MAX_CONFIG))
    except OSError as error:
        if error.errno == errno.EFBIG:
            what = f"larger than {MAX_CONFIG} bytes"
            raise RefusedError(what, path=path, remedy=REMEDY) from None
        raise DamagedError(f"cannot be read: {error.strerror}", path=path) from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"is not JSON: {str(error)[:100]}", path=path) from None
    if not isinstance(body, dict):
        raise DamagedError("is no table", path=path)
    return body


def _check(body: dict[str, Any], depth: int = 0) -> None:
    """Refuse what is no plain description; drop what the forward pass does not need."""
    if depth > 4:
        raise RefusedError("is nested too deeply")
    for name in (*_DROPPED, *(key for key in body if key.startswith("_"))):
        body.pop(name, None)
    for key, value in body.items():
        if key in _REFUSED and value:
            raise RefusedError(f"asks for {key}: nothing but transformers' own classes is run")
        most = MAX_LAYERS if any(part in key for part in _COUNTS) else MAX_NUMBER
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(n, int | float) and abs(n) > most for n in numbers):
            if key.startswith(("max_", "model_max")) or isinstance(value, float):
                continue  # lengths and constants such as 1e20 cost nothing
            raise RefusedError(f"{key} is {str(value)[:40]}; at most {most} is taken")
        if isinstance(value, dict):
            _check(value, depth + 1)


@contextmanager
def _offline() -> Iterator[Any]:
    """transformers, with its door to the network shut."""
    try:
        import huggingface_hub.constants as hub
        import transformers
    except ImportError:
        raise UsageError(
            "the model of config.json needs the package transformers",
            remedy="pip install transformers",
        ) from None
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = True
    try:
        yield transformers
    finally:
        hub.HF_HUB_OFFLINE = before


def _made(transformers: Any, name: str, body: dict[str, Any]) -> Any:
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise UsageError(f"transformers {transformers.__version__} has no model {name!r}")
    settings: Any = getattr(kind, "config_class", None)
    if not kind.__module__.startswith("transformers.models.") or settings is None:
        raise RefusedError(f"{name!r} is no model of transformers itself")
    said = body.pop("model_type", settings.model_type)
    if said != settings.model_type:
        raise RefusedError(f"model_type {str(said)[:40]!r} is not that of {name}")
    import torch

    config = settings.from_dict(body)
    config.use_cache = False  # caches of keys and values are no output of interest
    with torch.device("meta"):  # its size, before any memory is taken
        outline = kind(config)
    need = sum(t.nbytes for t in (*outline.parameters(), *outline.buffers()))
    if need > physical_memory():
        raise RefusedError(f"a model of {need} bytes, more than this machine has")
    with torch.random.fork_rng(devices=[]):
        return kind(config)
