"""The real torch reads our .pth and we read its files; transformers and PEFT compute the same.

Runs where torch (and, for the logits, transformers and peft) is installed.
"""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from common.files import write_json
from common.weights import peft as adapters
from common.weights import torch_files
from common.weights.convert import Options, convert
from common.weights.logits import logits, prompts
from common.weights.source import open_source
from common.weights.verify import verify

torch = pytest.importorskip("torch", reason="needs torch")

Models = Callable[..., Path]


def tensors_of(folder: Path) -> dict[str, Any]:
    """The model as torch tensors, under Hugging Face's names."""
    result = {}
    for name, tensor in open_source(folder).tensors.items():
        values = torch.from_numpy(tensor.read(0, tensor.shape[0]).copy())
        result[name] = values.view(torch.bfloat16) if tensor.dtype.name == "bf16" else values
    return result


def companions(source: Path, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, target / name)
    return target


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_ours_with_weights_only(models: Models, tmp_path: Path, dtype: str, mmap: bool) -> None:
    convert(models(dtype=dtype), tmp_path / "m", Options("meta"))
    loaded = torch.load(tmp_path / "m" / "consolidated.00.pth", weights_only=True, mmap=mmap)
    values = tensors_of(models(dtype=dtype))
    assert len(loaded) == len(values)
    assert torch.equal(loaded["layers.1.feed_forward.w2.weight"], values["model.layers.1.mlp.down_proj.weight"])
    # Meta's permutation, by the formula of the published conversion scripts.
    key = values["model.layers.1.self_attn.k_proj.weight"]
    assert torch.equal(loaded["layers.1.attention.wk.weight"], key.view(2, 2, 16, 128).transpose(1, 2).reshape(64, 128))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_bin_file_and_sharded_ones_are_read(models: Models, tmp_path: Path, dtype: str) -> None:
    original = models(dtype=dtype)
    values = tensors_of(original)
    one = companions(original, tmp_path / "one")
    torch.save(values, one / "pytorch_model.bin")
    many = companions(original, tmp_path / "many")
    names = list(values)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:7], names[7:]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: values[name] for name in part}, many / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(many / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})
    for folder in (one, many):
        assert open_source(folder).format == "hf-bin"
        assert verify(open_source(original), open_source(folder)).same


def test_parameters_views_and_a_trainers_checkpoint_are_read(models: Models, tmp_path: Path) -> None:
    # As nnScaler merges one: the wrapper's prefix, optimizer state, arguments and counters beside the model.
    original = models(dtype="fp32")
    values = {f"model.{name}": torch.nn.Parameter(tensor) for name, tensor in tensors_of(original).items()}
    folder = companions(original, tmp_path / "m")
    checkpoint = {
        "model": values,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4)}}, "param_groups": []},
        "train_args": {"run": argparse.Namespace(seed=1), "dtype": torch.bfloat16, "shape": torch.Size([2])},
        "rng_states": None,
        "nnscaler": "0.8",
    }
    torch.save(checkpoint, folder / "merged.ckpt")
    assert open_source(folder).format == "trainer"
    assert verify(open_source(original), open_source(folder / "merged.ckpt")).same


def test_a_colossalai_checkpoint_folder_is_read(models: Models, tmp_path: Path) -> None:
    original = models()
    modeling = companions(original, tmp_path / "epoch-0_step-10" / "modeling")
    values = tensors_of(original)
    names = list(values)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:9], names[9:]), 1):
        file = f"pytorch_model-{number:05}.bin"
        torch.save({name: values[name] for name in part}, modeling / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(modeling / "pytorch_model.bin.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})
    (tmp_path / "epoch-0_step-10" / "optimizer").mkdir()
    assert verify(open_source(original), open_source(tmp_path / "epoch-0_step-10")).same


# --- the reader of pickles is our own: what it reads is what torch.load(weights_only=True, mmap=True) reads


def attributed(tensor: Any) -> Any:
    tensor.tensor_model_parallel = True  # as trainers mark what they split
    return tensor


def linear() -> Any:
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LayerNorm(4)).bfloat16()
    return module.state_dict()  # an OrderedDict with an attribute of its own


def tied() -> dict[str, Any]:
    table = torch.randn(5, 4)
    return {"one": table, "other": table, "rows of it": table[1:3], "parameter": torch.nn.Parameter(table)}


def halves() -> dict[str, Any]:
    wide = torch.randn(4, 10).half()
    return {f"columns {number}": part for number, part in enumerate(wide.chunk(2, dim=1))}


PLAIN: dict[str, Callable[[], dict[str, Any]]] = {
    "three types": lambda: {str(t): torch.randn(3, 4).to(t) for t in (torch.float32, torch.bfloat16, torch.float16)},
    "an OrderedDict": lambda: collections.OrderedDict(a=torch.randn(2, 3), b=torch.randn(7)),
    "a module": linear,
    "tied and shared": tied,
    "parameters": lambda: {"a": torch.nn.Parameter(torch.randn(2, 3)), "b": torch.nn.Parameter(torch.randn(3), False)},
    "with attributes": lambda: {
        "a": attributed(torch.randn(2, 3)),
        "b": attributed(torch.nn.Parameter(torch.randn(3, 2))),
    },
    "transposed": lambda: {
        "a": torch.randn(3, 5).bfloat16().T,
        "b": torch.randn(1, 5).T,
        "c": torch.randn(8, 6)[2:7].T,
    },
    "columns": halves,
    "expanded": lambda: {"rows": torch.randn(1, 4).expand(3, 4), "columns": torch.randn(3, 1).expand(3, 4)},
    "empty and scalar": lambda: {"a": torch.empty(0, 4), "b": torch.tensor(2.5), "c": torch.randn(4)},
}
NESTED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": torch.tensor(0.5)},
    "model": lambda state: {"rng": torch.get_rng_state(), "model": state, "optimizer": {"state": {0: torch.ones(2)}}},
    "module": lambda state: {"module": state, "args": None, "shape": torch.Size([2]), "dtype": torch.bfloat16},
}


def bits(tensor: Any) -> bytes:
    return bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist()) if tensor.numel() else b""


@pytest.mark.parametrize("nested", NESTED)
@pytest.mark.parametrize("plain", PLAIN)
def test_what_is_read_is_what_torch_reads(tmp_path: Path, plain: str, nested: str) -> None:
    torch.manual_seed(0)
    state = PLAIN[plain]()
    for protocol in (2, 4):
        torch.save(NESTED[nested](state), tmp_path / f"{protocol}.pth", pickle_protocol=protocol)
    loaded = torch.load(tmp_path / "2.pth", weights_only=True, mmap=True)  # knows no instruction of protocol 4
    expected = loaded if nested == "bare" else loaded[nested]
    for protocol in (2, 4):
        found = torch_files.read(tmp_path / f"{protocol}.pth")
        assert list(found) == list(expected) == list(state)
        for name, tensor in expected.items():
            assert found[name].shape == tuple(tensor.shape)
            if not tensor.shape:
                continue
            opened = found[name].open()
            assert opened.dtype.hugging_face == str(tensor.dtype).removeprefix("torch.")
            assert opened.read(0, tensor.shape[0]).tobytes() == bits(tensor), name
            if tensor.shape[0]:
                assert opened.read(1, tensor.shape[0]).tobytes() == bits(tensor[1:]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: torch.randn(3, 4, 5).permute(2, 0, 1), "stored with gaps"),
        (lambda: torch.randn(9)[::2], "stored with gaps"),
        (lambda: torch.randn(3, 4).to_sparse(), "no state dict"),
        (lambda: torch.randn(3, 4).double(), "dtype that Llama 3 weights do not have"),
        (lambda: torch._neg_view(torch.randn(3, 4)), "no state dict"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(tmp_path: Path, change: Callable[[], Any], message: str) -> None:
    torch.save({"a": change()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=message):
        torch_files.read(tmp_path / "x.pth")["a"].open()


def test_the_old_format_before_zip_is_refused_with_a_way_out(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"the format of torch before 1\.6") as refused:
        torch_files.read(tmp_path / "old.pth")
    assert "torch.save(torch.load(OLD, weights_only=True), NEW)" in str(refused.value)
    torch.save(torch.load(tmp_path / "old.pth", weights_only=True), tmp_path / "new.pth")
    assert torch_files.read(tmp_path / "new.pth")["a"].open().read(0, 3).tolist() == [1, 1, 1]


CODE = ("os.system", "posix.system", "subprocess.Popen", "builtins.eval", "builtins.getattr", "importlib.import_module")
CODE += ("torch.load", "torch.hub.load", "torch.jit.load", "torch.serialization.load", "numpy.load", "runpy.run_path")
CODE += ("functools.partial", "operator.attrgetter", "shutil.rmtree", "webbrowser.open", "transformers.AutoModel")
READ_AND_LISTEN = """
import sys
from pathlib import Path
from common.errors import UserError
from common.weights import torch_files

good, *files = map(Path, sys.argv[1:])
torch_files.read(good)
heard = []
sys.addaudithook(lambda event, _: heard.append(event))
code = 0
for file in files:
    try:
        torch_files.read(file)
    except UserError as error:
        code += "asks to run code" in str(error)
print(code, *sorted(set(heard) - {"open"}))
"""


def test_what_torch_refuses_is_refused_and_nothing_is_looked_up_or_called(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "torch.pth")

    def archive(name: str, pickled: bytes | None = None) -> Path:
        with zipfile.ZipFile(tmp_path / "torch.pth") as old, zipfile.ZipFile(tmp_path / name, "w") as new:
            for member in old.namelist():
                new.writestr(member, pickled if pickled and member.endswith("data.pkl") else old.read(member))
        return tmp_path / name

    def calling(function: str) -> Path:
        """{"a": FUNCTION("x")} as a checkpoint."""
        module, _, attribute = function.rpartition(".")
        start = b"\x80\x02}X\x01\x00\x00\x00ac" + f"{module}\n{attribute}\n".encode()
        return archive(f"{function}.pth", start + b"X\x01\x00\x00\x00x\x85Rs.")

    code = [calling(function) for function in CODE]
    for file in code:
        with pytest.raises(pickle.UnpicklingError):
            torch.load(file, weights_only=True)
    known = [calling("argparse.Namespace"), calling("nnscaler.x.Y")]  # trainers' own are no code, and not called either
    command = [sys.executable, "-c", READ_AND_LISTEN, *map(str, [archive("good.pth"), *code, *known])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Python tells a hook of whatever is imported, compiled, run, loaded or asked of the system: there was nothing.
    assert done.stdout.split() == [str(len(code))]


def test_transformers_computes_the_same_logits(models: Models, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    convert(models(dtype="fp32"), tmp_path / "meta", Options("meta"))
    convert(tmp_path / "meta", tmp_path / "back", Options("hf"))
    torch.manual_seed(0)
    scaled = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=96, num_attention_heads=6, num_key_value_heads=2, head_dim=16, intermediate_size=200,
            num_hidden_layers=2, vocab_size=700, tie_word_embeddings=True, max_position_embeddings=131072,
            rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 8},
            bos_token_id=1, eos_token_id=[2, 3], initializer_range=0.1,
        )
    )  # fmt: skip
    scaled.save_pretrained(tmp_path / "scaled")
    for folder in (models(dtype="fp32"), tmp_path / "back", tmp_path / "scaled"):
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        ours = open_source(folder)
        for ids in prompts(ours.config):
            with torch.no_grad():
                expected = theirs(torch.tensor([ids])).logits[0].numpy()
            assert np.abs(expected).max() > 0.5
            assert np.abs(logits(ours, ids) - expected).max() < 1e-5


def test_a_merged_adapter_is_what_peft_merges(models: Models, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    base = models(dtype="fp32")
    torch.manual_seed(0)
    cases: dict[str, dict[str, Any]] = {
        "plain": {"r": 8, "lora_alpha": 16},
        "rslora": {"r": 4, "lora_alpha": 16, "use_rslora": True},
        "rows": {"r": 2, "lora_alpha": 4, "trainable_token_indices": {"embed_tokens": [3, 1030], "lm_head": [1030, 7]}},
        "patterns": {"r": 4, "lora_alpha": 8, "alpha_pattern": {"v_proj": 32}, "rank_pattern": {"q_proj": 2}},
    }
    for name, options in cases.items():
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        targets = ["q_proj", "v_proj", "down_proj"]
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, **options))
        for parameter_name, parameter in wrapped.named_parameters():
            if "lora_B" in parameter_name or "trainable_tokens" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.1)
        wrapped.save_pretrained(tmp_path / name)
        assert json.loads((tmp_path / name / "adapter_config.json").read_text())["peft_type"] == "LORA"
        merged = adapters.open_merged(tmp_path / name, base)
        expected = wrapped.merge_and_unload().state_dict()
        for key, tensor in merged.tensors.items():
            assert np.abs(tensor.read(0, tensor.shape[0]) - expected[key].numpy()).max() < 1e-6, (name, key)
        assert not verify(open_source(base), merged).same
        convert(tmp_path / name, tmp_path / f"{name}-out", Options("hf"), base=base)
        assert verify(merged, open_source(tmp_path / f"{name}-out")).same
