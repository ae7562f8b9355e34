"""`python -m common.evaluation perplexity`: the loss that transformers itself computes, on prepared and on raw data."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from asked_run import Ask
from datasets import load_from_disk

from common import environment
from common.data.options import Options
from common.data.prepare import prepare

# The loss of each document by the model's own loss function, in float64 sums over its trained tokens
REFERENCE = """\
import json, sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
total, count = 0.0, 0
for ids, labels in json.load(sys.stdin):
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
    trained = sum(label != -100 for label in labels[1:])
    total, count = total + float(loss) * trained, count + trained
print(json.dumps([total / count, count]))
"""


@pytest.fixture
def measure(torch_python: Path) -> Ask:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "common.evaluation", "perplexity", *map(str, arguments), "--json"]
        variables = {**os.environ, "PYTHONPATH": str(environment.ROOT)}
        command += ["--python", str(torch_python)]
        return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=environment.ROOT)

    return run


def result(done: subprocess.CompletedProcess[str]) -> dict[str, float]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_the_model_s_own_loss(measure: Ask, finished_run: Path, torch_python: Path, tmp_path: Path) -> None:
    rows = load_from_disk(str(finished_run / "data"))
    documents = json.dumps([[row["input_ids"], row["labels"]] for row in rows])
    script = [torch_python, "-c", REFERENCE, finished_run / "model"]
    expected, count = json.loads(subprocess.run(script, input=documents, capture_output=True, text=True).stdout)

    call = ["--model", finished_run / "model", "--data"]
    found = result(measure(*call, finished_run / "data"))
    assert (found["tokens"], found["documents"]) == (count, len(rows))
    assert found["loss"] == pytest.approx(expected, abs=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    together = result(measure(*call, finished_run / "data", "--batch-size", 3))
    assert together["loss"] == pytest.approx(found["loss"], abs=1e-6) and together["tokens"] == count
    raw = result(measure(*call, finished_run / "input.jsonl"))
    assert raw == pytest.approx(found), "raw data are prepared as the training data were"
    prepare(
        Options(
            input=str(finished_run / "input.jsonl"),
            output=tmp_path / "packed",
            tokenizer="tiny",
            template="human_assistant",
            system="You are helpful.",
            packing="bfd",
        )
    )
    assert result(measure(*call, tmp_path / "packed")) == pytest.approx(found, abs=1e-5), "documents are apart"


def test_data_of_another_tokenizer_and_of_no_layout(measure: Ask, finished_run: Path, tmp_path: Path) -> None:
    prepared = tmp_path / "data"
    prepare(Options(str(finished_run / "input.jsonl"), prepared, "tiny", "llama3"))
    meta = json.loads((prepared / "meta.json").read_text("utf-8"))
    (prepared / "meta.json").write_text(json.dumps({**meta, "tokenizer": "sha256:another"}), encoding="utf-8")
    for data, problem in ((prepared, "tokenizer"), (tmp_path / "none.jsonl", "none.jsonl")):
        done = measure("--model", finished_run / "model", "--data", data)
        assert done.returncode == 2 and problem in done.stderr and "Traceback" not in done.stderr
