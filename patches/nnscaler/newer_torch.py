"""nnScaler 0.8's tracer on torch newer than 2.6, which is the newest that it declares."""

from __future__ import annotations

from typing import Any

VERSIONS = "==0.8"
REASON = (
    "The tracer takes every function of torch's namespaces as a leaf and finds it again by its qualified name, which "
    "what pybind11 3 binds has not; and torch.fx now passes an argument to Node.is_impure that the tracer's own "
    "version does not take. Either ends the tracing."
)
UPSTREAM = "nnscaler/graph/tracer/wrap_utils.py, default_autowrap_leaf_function; torch_fx_patcher.py, is_impure_new"


def apply() -> None:
    """Leave out functions that have no name in a module, and take torch.fx's further arguments."""
    from nnscaler.graph.tracer.torch_fx_patcher import TorchFXPatcher
    from nnscaler.graph.tracer.wrap_utils import default_autowrap_leaf_function as leaves

    for function in [each for each in leaves if getattr(each, "__qualname__", "").startswith("pybind11_detail")]:
        del leaves[function]
    original = TorchFXPatcher.is_impure_new
    if getattr(original, "newer_torch", False):
        return

    def is_impure(node: Any, *_: Any, **__: Any) -> Any:
        return original(node)

    is_impure.newer_torch = True  # type: ignore[attr-defined]
    TorchFXPatcher.is_impure_new = staticmethod(is_impure)
