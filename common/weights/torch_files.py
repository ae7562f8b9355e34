"""torch's checkpoint files (.pth, .pt, .bin, and the .ckpt of trainers), read and written without torch.

The format (torch.save since 1.6): an uncompressed zip archive with `<name>/data.pkl`, which
describes the object, and `<name>/data/<key>`, the bytes of each storage, little-endian.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.weights import pickle_reading, zip_layout
from common.weights.dtypes import DTYPES
from common.weights.pickle_reading import StoredTensor
from common.weights.tensors import Extent, RawTensor, Tensor
from common.weights.writing import OutputFile

_TYPES = {dtype.torch_storage: dtype for dtype in DTYPES.values()}
_ITEM_SIZES = {
    **dict.fromkeys(("ByteStorage", "CharStorage", "BoolStorage"), 1),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("DoubleStorage", "LongStorage"), 8),
}
_PICKLE_LIMIT = 256 * 2**20  # bytes; a 405B model's is below one MiB
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6: a pickled number comes first
_STATE_KEYS = ("model", "state_dict", "module", "model_state_dict")


def is_archive(file: Path) -> bool:
    """Whether `file` begins like a zip archive, as torch's checkpoints do."""
    with open(file, "rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def read(file: Path) -> dict[str, RawTensor]:
    """Every tensor of the model in `file`, in its order; nothing in the file is run.

    The file holds a state dict, or a trainer's checkpoint with one under "model", "state_dict" or
    "module". Raises UserError for a truncated or foreign file, and for one with code in it.
    """
    if not is_archive(file):
        with open(file, "rb") as stream:
            old = stream.read(len(_LEGACY_MAGIC)) == _LEGACY_MAGIC
        if old:
            hint = "with a current torch: torch.save(torch.load(OLD, weights_only=True), NEW)"
            raise UserError("the checkpoint is in the format of torch before 1.6", file=file, hint=hint)
        hint = "the file is truncated or something else: download it again"
        raise UserError("not a torch checkpoint (a zip archive)", file=file, hint=hint)
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            described = next((name for name in members if name.endswith("/data.pkl")), None)
            if described is None:
                raise UserError("the archive has no data.pkl: no torch checkpoint", file=file)
            if members[described].file_size > _PICKLE_LIMIT:
                raise UserError("the pickle inside is too large", file=file, found=members[described].file_size)
            content = archive.read(described)
            root = described.removesuffix("data.pkl")
            order = b"little"
            if root + "byteorder" in members:
                with archive.open(root + "byteorder") as stream:
                    order = stream.read(16)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        hint = "download it again"
        raise UserError("the archive is truncated or broken", file=file, found=str(error), hint=hint) from None
    if order.strip() != b"little":
        raise UserError("the file is big-endian", file=file, hint="save it again on a little-endian machine")
    state = _state(pickle_reading.read(content, file), file)
    return {
        name: _raw(name, value, root, members, file) for name, value in state.items() if isinstance(value, StoredTensor)
    }


def _state(value: Any, file: Path) -> dict[str, Any]:
    for _ in range(3):
        if not isinstance(value, dict):
            break
        # First what is inside: a trainer keeps random states and counters, tensors too, beside it.
        inner = next((value[key] for key in _STATE_KEYS if isinstance(value.get(key), dict)), None)
        if inner is None and any(isinstance(item, StoredTensor) for item in value.values()):
            return {str(key): item for key, item in value.items()}
        value = inner
    raise UserError("the file holds no state dict", file=file, expected="names and tensors")


def _raw(name: str, tensor: StoredTensor, root: str, members: Mapping[str, zipfile.ZipInfo], file: Path) -> RawTensor:
    storage = tensor.storage
    member = members.get(f"{root}data/{storage.key}")
    item = _ITEM_SIZES.get(storage.type)
    if member is None or item is None:
        found = storage.type if item is None else f"no {root}data/{storage.key}"
        raise UserError(f"tensor {name!r} cannot be read", file=file, found=found)
    rows_in_order = 0 in tensor.shape or _contiguous(tensor)
    if not rows_in_order and (len(tensor.shape) != 2 or 1 not in tensor.strides):
        hint = "save it again with tensor.contiguous()"
        raise UserError(f"tensor {name!r} is stored with gaps", file=file, found=tensor.strides, hint=hint)
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    length = item * (prod(tensor.shape) if rows_in_order else reach)
    offset = tensor.offset * item
    if member.compress_type != zipfile.ZIP_STORED or offset + length > member.file_size:
        raise UserError(f"tensor {name!r} reaches beyond its storage", file=file, found=f"{member.file_size} bytes")
    start = zip_layout.data_offset(file, member.header_offset)
    if start + member.file_size > file.stat().st_size:
        raise UserError("the archive is truncated", file=file, found=f"{file.stat().st_size} bytes")
    extent = Extent(file, start + offset, length)
    strides = None if rows_in_order else tensor.strides
    kind = storage.type.removesuffix("Storage")
    return RawTensor(name, kind, _TYPES.get(storage.type), tensor.shape, (extent,), strides)


def _contiguous(tensor: StoredTensor) -> bool:
    expected = 1
    for size, stride in zip(tensor.shape[::-1], tensor.strides[::-1], strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def plan(name: str, tensors: Mapping[str, Tensor]) -> OutputFile:
    """A file called `name` that torch.load reads as a dict of `tensors`, also with weights_only and mmap."""
    root = Path(name).stem
    members: list[tuple[str, bytes | Tensor]] = [
        (f"{root}/data.pkl", _description(tensors)),
        (f"{root}/byteorder", b"little"),
    ]
    # A tensor that appears under two names (a tied table) is stored once, as torch.save does.
    keys = _keys(list(tensors.values()))
    stored: dict[int, Tensor] = {keys[id(tensor)]: tensor for tensor in tensors.values()}
    members += [(f"{root}/data/{key}", tensor) for key, tensor in stored.items()]
    members.append((f"{root}/version", b"3\n"))
    return zip_layout.plan(name, members)


def _keys(tensors: Sequence[Tensor]) -> dict[int, int]:
    keys: dict[int, int] = {}
    for tensor in tensors:
        keys.setdefault(id(tensor), len(keys))
    return keys


def _description(tensors: Mapping[str, Tensor]) -> bytes:
    """The pickle of a dict of tensors, instruction by instruction as torch.save writes it (protocol 2)."""
    keys = _keys(list(tensors.values()))
    stream = io.BytesIO()
    stream.write(pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK)
    for name, tensor in tensors.items():
        strides = [prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape))]
        stream.write(_string(name))
        stream.write(pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + pickle.MARK)
        stream.write(_string("storage"))
        stream.write(pickle.GLOBAL + f"torch\n{tensor.dtype.torch_storage}\n".encode())
        stream.write(_string(str(keys[id(tensor)])) + _string("cpu") + _integer(prod(tensor.shape)))
        stream.write(pickle.TUPLE + pickle.BINPERSID + _integer(0))
        stream.write(_integers(tensor.shape) + _integers(strides) + pickle.NEWFALSE)
        stream.write(pickle.GLOBAL + b"collections\nOrderedDict\n" + pickle.EMPTY_TUPLE + pickle.REDUCE)
        stream.write(pickle.TUPLE + pickle.REDUCE)
    stream.write(pickle.SETITEMS + pickle.STOP)
    return stream.getvalue()


def _string(text: str) -> bytes:
    content = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(content)) + content


def _integer(number: int) -> bytes:
    if number < 2**31:
        return pickle.BININT + struct.pack("<i", number)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", number)


def _integers(numbers: Sequence[int]) -> bytes:
    return pickle.MARK + b"".join(map(_integer, numbers)) + pickle.TUPLE
