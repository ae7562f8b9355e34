"""ColossalAI without galore_torch and bitsandbytes, which only its GaLore optimizers use."""

from __future__ import annotations

import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec

VERSIONS = ">=0.4.4,<0.4.5"
REASON = (
    "colossalai.nn.optimizer imports galore_torch and bitsandbytes at module level, so `import colossalai` fails "
    "without them: hundreds of megabytes of CUDA libraries for optimizers that are not used."
)
UPSTREAM = "colossalai/nn/optimizer/galore.py and distributed_galore.py: imports at the top"

MODULES = {
    "galore_torch": ("GaLoreAdafactor", "GaLoreAdamW"),
    "galore_torch.galore_projector": ("GaLoreProjector",),
    "bitsandbytes": (),
    "bitsandbytes.optim": (),
    "bitsandbytes.optim.optimizer": ("Optimizer2State",),
}


class Missing:
    """In place of a class of a package that is not installed. Can be inherited from, not made."""

    def __init__(self, *_: object, **__: object) -> None:
        raise ImportError("galore_torch and bitsandbytes are not installed: GaLore cannot be used")


def apply() -> None:
    """Give `import colossalai` empty modules for what is not installed. Does nothing where both are."""
    absent = {name for name in ("galore_torch", "bitsandbytes") if name not in sys.modules and not found(name)}
    for name, classes in MODULES.items():
        package, _, last = name.rpartition(".")
        if name.split(".")[0] not in absent:
            continue
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []
        for each in classes:
            setattr(module, each, Missing)
        sys.modules[name] = module
        if package:
            setattr(sys.modules[package], last, module)


def found(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
