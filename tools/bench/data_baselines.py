"""What people use today, timed by tools/bench/data.py in a process of its own.

map and loop need transformers and datasets, mindformers needs MindFormers.

    python -m tools.bench.data_baselines map|loop|mindformers INPUT TOKENIZER_FOLDER WORK_FOLDER

prints {"rows", "tokens", "seconds"} as JSON; seconds leave out importing and loading the tokenizer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_LENGTH = 2048
LLAMA3 = (
    "{% for message in messages %}{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
)


def chat_map(source: str, folder: str, work: Path) -> dict[str, float]:
    """datasets.map with apply_chat_template and two processes, to Arrow files; without masks or packing."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = LLAMA3
    started = time.perf_counter()
    rows = datasets.load_dataset("json", data_files=source, split="train", cache_dir=str(work / "cache"))

    def tokenize(row: dict[str, list[dict[str, str]]]) -> dict[str, list[int]]:
        return {"input_ids": tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=False)}

    made = rows.map(tokenize, num_proc=2, remove_columns=rows.column_names)
    made.save_to_disk(str(work / "out"))
    seconds = time.perf_counter() - started
    column = made.data.column("input_ids")
    return {"rows": len(made), "tokens": sum(len(chunk.values) for chunk in column.chunks), "seconds": seconds}


def transformers_loop(source: str, folder: str, work: Path) -> dict[str, float]:
    """The loop with the tokenizer of transformers, which is compiled, to JSON lines."""
    from transformers import AutoTokenizer

    with open(work / "out.jsonl", "w", encoding="utf-8") as out:

        def write(ids: list[int], labels: list[int]) -> None:
            out.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")

        return round_loop(source, AutoTokenizer.from_pretrained(folder), write, out.flush)


def mindformers_loop(source: str, folder: str, work: Path) -> dict[str, float]:
    """The loop as MindFormers' preprocessor has it: its tokenizer class around tiktoken, MindRecord row by row."""
    import numpy as np
    import tiktoken
    from mindformers.models.tokenization_utils import PreTrainedTokenizer
    from mindspore.mindrecord import FileWriter

    from common.tokenizer import vocabulary

    read = vocabulary.read(Path(folder))
    special = dict(read.special)

    class Llama3Tokenizer(PreTrainedTokenizer):
        def __init__(self) -> None:
            ranks = read.ranks
            self.model = tiktoken.Encoding(
                "llama3", pat_str=vocabulary.SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special
            )
            super().__init__(
                bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>", pad_token="<|finetune_right_pad_id|>"
            )

        @property
        def vocab_size(self) -> int:
            return read.size

        def get_vocab(self) -> dict[str, int]:
            return {}

        def _tokenize(self, text: str, **_: object) -> list[int]:
            ids: list[int] = self.model.encode(text, allowed_special="all")
            return ids

        def _convert_token_to_id(self, token: int | str) -> int:
            return token if isinstance(token, int) else special[token]

    writer = FileWriter(str(work / "out.mindrecord"), shard_num=1)
    column = {"type": "int32", "shape": [-1]}
    writer.add_schema({"input_ids": column, "labels": column}, "rows")

    def write(ids: list[int], labels: list[int]) -> None:
        row = np.full((2, MAX_LENGTH + 1), [[special["<|finetune_right_pad_id|>"]], [-100]], dtype=np.int32)
        row[0, : len(ids)], row[1, : len(labels)] = ids[: MAX_LENGTH + 1], labels[: MAX_LENGTH + 1]
        writer.write_raw_data([{"input_ids": row[0], "labels": row[1]}])

    return round_loop(source, Llama3Tokenizer(), write, writer.commit)


def round_loop(
    source: str, tokenizer: Any, write: Callable[[list[int], list[int]], None], finish: Callable[[], Any]
) -> dict[str, float]:
    """One conversation at a time: tokenized whole, then each round, and each round's prompt to measure it."""
    started = time.perf_counter()
    count = tokens = 0
    with open(source, encoding="utf-8") as lines:
        for line in lines:
            messages = json.loads(line)["messages"]
            turns = list(zip(messages[::2], messages[1::2], strict=True))
            prompts = [f"USER: {question['content']} ASSISTANT:" for question, _ in turns]
            rounds = [f"{prompt} {answer['content']}" for prompt, (_, answer) in zip(prompts, turns, strict=True)]
            ids = [tokenizer.bos_token_id, *tokenizer("".join(rounds), add_special_tokens=False).input_ids]
            labels = [-100]
            for prompt, whole in zip(prompts, rounds, strict=True):
                length = len(tokenizer(whole, add_special_tokens=False).input_ids)
                masked = len(tokenizer(prompt, add_special_tokens=False).input_ids)
                labels += [-100] * masked + ids[len(labels) + masked : len(labels) + length]
            write(ids, labels)
            count += 1
            tokens += len(ids)
    finish()
    return {"rows": count, "tokens": tokens, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    kind, source, folder, work = sys.argv[1:]
    Path(work).mkdir(parents=True, exist_ok=True)
    kinds = {"map": chat_map, "loop": transformers_loop, "mindformers": mindformers_loop}
    print(json.dumps(kinds[kind](source, folder, Path(work))))
