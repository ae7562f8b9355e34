"""Models and data sets by their hub id, through the hubs' own clients: their tokens, caches and endpoints.

`org/name` is fetched from Hugging Face (HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE), and
`modelscope:org/name` from ModelScope (MODELSCOPE_API_TOKEN, MODELSCOPE_CACHE, MODELSCOPE_ENDPOINT). Downloads
resume, and show the clients' own progress.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import RunError, UserError

KINDS = ("model", "dataset")
MODELSCOPE = "modelscope:"
_ID = re.compile(r"^(?:modelscope:)?[\w][\w.-]*/[\w][\w.-]*$")
_SMALL = ["*.json", "*.model", "*.jinja", "*.yaml", "*.md", "LICENSE*", "USE_POLICY*"]
# Repositories hold the same weights several times over; safetensors and .ckpt come first.
_MODEL_FILES = [*_SMALL, "*.safetensors", "*.ckpt"]
_OLDER_MODEL_FILES = [*_SMALL, "*.bin", "*.pth"]
_DUPLICATES = ["original/*", "*.gguf", "onnx/*", "metal/*", "training_args.bin", "optimizer*"]
_WEIGHTS = ("*.safetensors", "*.ckpt", "*.bin", "*.pth")


def is_identifier(text: str) -> bool:
    """Whether `text` can be a hub id, and is nothing that exists on this machine."""
    return _ID.match(text) is not None and not Path(text).exists()


def resolve(source: str, kind: str = "model", revision: str | None = None) -> Path:
    """The folder or file that `source` is: itself where it exists, else what the hub id gives.

    Raises UserError when it is neither.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if not is_identifier(source):
        hint = "give a folder, a file, or a hub id such as meta-llama/Meta-Llama-3-8B"
        raise UserError(f"no such {kind}", file=path, hint=hint)
    return fetch(source, kind, revision)


def fetch(identifier: str, kind: str = "model", revision: str | None = None) -> Path:
    """The folder that holds the model or data set `identifier`, downloaded unless it is in the cache.

    `revision` is a branch, tag or commit. Raises UserError for an id, a revision or a permission
    that is missing, RunError when the hub cannot be reached and the cache does not hold it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {KINDS}")
    download = _from_modelscope if identifier.startswith(MODELSCOPE) else _from_hugging_face
    name = identifier.removeprefix(MODELSCOPE)
    if kind == "dataset":
        return download(name, kind, revision, None)
    folder = download(name, kind, revision, _MODEL_FILES)
    if not _has_weights(folder):
        folder = download(name, kind, revision, _OLDER_MODEL_FILES)
    if not _has_weights(folder):
        raise UserError("the repository has no weights", found=identifier, expected=", ".join(_WEIGHTS))
    return folder


def _has_weights(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in _WEIGHTS)


def _from_hugging_face(name: str, kind: str, revision: str | None, patterns: Sequence[str] | None) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    where = f"{name} at revision {revision}" if revision else name
    try:
        folder = huggingface_hub.snapshot_download(
            name,
            repo_type=kind,
            revision=revision,
            allow_patterns=list(patterns) if patterns is not None else None,
            ignore_patterns=_DUPLICATES if patterns is not None else None,
        )
    except errors.GatedRepoError:
        hint = "accept its licence on its page on the hub, then set HF_TOKEN or run `hf auth login`"
        raise UserError(f"the {kind} is gated and this account has no access", found=where, hint=hint) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"the {kind} has no such revision", found=where, hint="name a branch, tag or commit") from None
    except errors.RepositoryNotFoundError:
        hint = "check the id; a private or gated one needs HF_TOKEN"
        raise UserError(f"the hub has no such {kind}, or hides it from this account", found=where, hint=hint) from None
    except errors.HFValidationError as error:
        raise UserError("not a hub id", found=name, expected="organisation/name", hint=str(error)) from None
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(where, error) from None
    except OSError as error:
        if getattr(error, "errno", None):
            raise  # of this machine: its disk, its permissions
        raise _unreachable(where, error) from None
    except Exception as error:
        # The client's network library raises errors of its own: anything else is a defect and shows.
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
            raise _unreachable(where, error) from None
        raise
    return Path(folder)


def _from_modelscope(name: str, kind: str, revision: str | None, patterns: Sequence[str] | None) -> Path:
    try:
        client = importlib.import_module("modelscope")
    except ImportError:
        hint = "pip install modelscope, or give the folder of a download"
        raise UserError("ModelScope's client is not installed", found=MODELSCOPE + name, hint=hint) from None
    where = f"{MODELSCOPE}{name}" + (f" at revision {revision}" if revision else "")
    ignored = _DUPLICATES if patterns is not None else None
    download = client.dataset_snapshot_download if kind == "dataset" else client.snapshot_download
    try:
        folder = download(
            name,
            revision=revision,
            allow_patterns=list(patterns) if patterns is not None else None,
            ignore_patterns=ignored,
        )
    except ConnectionError as error:  # its client's NetworkError is one
        raise _unreachable(where, error) from None
    except Exception as error:
        # The client's errors changed their names between releases; their text says what is missing.
        module = type(error).__module__.split(".")[0]
        if module not in ("modelscope", "modelscope_hub", "requests", "urllib3", "builtins") or (
            module == "builtins" and not isinstance(error, OSError | ValueError)
        ):
            raise
        if isinstance(error, OSError) and error.errno and error.filename:
            raise
        hint = "check the id, the revision, the network and `modelscope login`"
        raise UserError(f"ModelScope does not give this {kind}", found=f"{where}: {error}", hint=hint) from None
    return Path(folder)


def _unreachable(where: str, error: Exception) -> RunError:
    cause = error.__cause__ or error
    reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    hint = "check the network and the client's own variables (HF_ENDPOINT, HF_HUB_OFFLINE; MODELSCOPE_ENDPOINT), then "
    hint += "repeat: what was downloaded is kept"
    return RunError("the hub cannot be reached and the cache does not hold it", found=f"{where}: {reason}", hint=hint)
