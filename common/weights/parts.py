"""Put a model together from the parts that model-parallel ranks hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import UserError
from common.weights.tensors import Tensor
from common.weights.views import Columns, Rows, SideBySide, Stacked

_ROW_PARALLEL = ("self_attn.o_proj.weight", "mlp.down_proj.weight", ".wo.weight", ".w2.weight")


def split_axis(name: str, shape: Sequence[int], parts: int) -> int | None:
    """The axis along which tensor parallelism splits a weight, None for one that every rank holds.

    Output features everywhere, input features for the two projections back into the residual stream.
    """
    if parts == 1 or len(shape) == 1:
        return None
    return 1 if name.endswith(_ROW_PARALLEL) else 0


def take(name: str, tensor: Tensor, part: int, parts: int) -> Tensor:
    """Rank `part`'s share of a weight that is split over `parts` ranks. Raises UserError when it does not divide."""
    axis = split_axis(name, tensor.shape, parts)
    if axis is None:
        return tensor
    if tensor.shape[axis] % parts:
        raise UserError(f"tensor {name!r} cannot be split", found=list(tensor.shape), expected=f"a multiple of {parts}")
    size = tensor.shape[axis] // parts
    view = Rows if axis == 0 else Columns
    return view(tensor, part * size, (part + 1) * size)


def join_meta(
    parts: Sequence[Mapping[str, Tensor]], shapes: Mapping[str, tuple[int, ...]], where: Path
) -> dict[str, Tensor]:
    """The whole tensors of Meta's consolidated.NN.pth files; `shapes` are the whole ones, by Meta's names.

    More parts than key heads hold each key head several times, in parts that follow each other.
    """
    joined: dict[str, Tensor] = {}
    for name in parts[0]:
        held = [part[name] for part in parts if name in part]
        if len(held) != len(parts):
            raise UserError(f"tensor {name!r} is missing in some of the parts", file=where, found=f"{len(held)} parts")
        joined[name] = _join(name, held, shapes.get(name), where, copies_follow=True)
    return joined


def join_ranks(
    ranks: Sequence[Mapping[str, Tensor]], shapes: Mapping[str, tuple[int, ...]], where: Path
) -> dict[str, Tensor]:
    """The whole tensors of MindSpore's rank folders; `shapes` are the whole ones, by the folders' names.

    Model-parallel ranks are next to each other, data-parallel ones hold copies, pipeline stages hold
    different tensors. Raises UserError for slices by both model and optimizer parallelism: their
    order is in MindSpore's strategy files only.
    """
    names = dict.fromkeys(name for rank in ranks for name in rank)
    held = {name: [rank[name] for rank in ranks if name in rank] for name in names}
    model_parallel = 1
    for name, tensors in held.items():
        whole = shapes.get(name)
        if name.endswith(_ROW_PARALLEL) and whole is not None and len(tensors[0].shape) == 2:
            model_parallel = max(model_parallel, whole[1] // max(1, tensors[0].shape[1]))
    for name, tensors in held.items():
        whole = shapes.get(name)
        if whole is None or model_parallel == 1:
            continue
        slices = whole[0] // max(1, tensors[0].shape[0])
        if slices not in (1, model_parallel) or (slices > 1 and name.endswith(_ROW_PARALLEL)):
            raise UserError(
                f"the slices of {name!r} come from model and optimizer parallelism together",
                file=where,
                found=f"{slices} slices of rows at model parallel {model_parallel}",
                hint="merge them with mindspore.transform_checkpoints and the strategy file first",
            )
    return {name: _join(name, tensors, shapes.get(name), where, copies_follow=False) for name, tensors in held.items()}


def _join(
    name: str, held: Sequence[Tensor], whole: tuple[int, ...] | None, where: Path, *, copies_follow: bool
) -> Tensor:
    first = held[0]
    if any(tensor.shape != first.shape or tensor.dtype is not first.dtype for tensor in held):
        found = sorted({f"{tensor.dtype.name} {list(tensor.shape)}" for tensor in held})
        raise UserError(f"the parts of {name!r} have different shapes", file=where, found=", ".join(found))
    if whole is None or first.shape == whole or len(whole) != len(first.shape):
        return first  # every rank holds all of it; another shape is reported by the check that follows
    axis = next(axis for axis, size in enumerate(whole) if first.shape[axis] != size)
    slices = whole[axis] // max(1, first.shape[axis])
    copies = len(held) // max(1, slices)
    if slices * first.shape[axis] != whole[axis] or slices * copies != len(held) or copies == 0:
        raise UserError(
            f"the parts of {name!r} do not make up the whole",
            file=where,
            found=f"{len(held)} parts of {list(first.shape)}",
            expected=list(whole),
        )
    chosen = held[::copies] if copies_follow else held[:slices]
    return Stacked(chosen) if axis == 0 else SideBySide(chosen)
