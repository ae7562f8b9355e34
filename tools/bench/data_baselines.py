"""What people use today, timed by tools/bench/data.py in a process of its own; needs transformers and datasets.

    python tools/bench/data_baselines.py map|loop INPUT TOKENIZER_FOLDER WORK_FOLDER

prints {"rows", "tokens", "seconds"} as JSON; seconds leave out importing and loading the tokenizer.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

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


def round_loop(source: str, folder: str, work: Path) -> dict[str, float]:
    """One conversation at a time, each round tokenized by itself and once more to measure its prompt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    started = time.perf_counter()
    count = tokens = 0
    with open(source, encoding="utf-8") as lines, open(work / "out.jsonl", "w", encoding="utf-8") as out:
        for line in lines:
            messages = json.loads(line)["messages"]
            ids = [tokenizer.bos_token_id]
            labels = [-100]
            for question, answer in zip(messages[::2], messages[1::2], strict=True):
                prompt = f"USER: {question['content']} ASSISTANT:"
                whole = tokenizer(f"{prompt} {answer['content']}", add_special_tokens=False).input_ids
                masked = len(tokenizer(prompt, add_special_tokens=False).input_ids)
                ids += [*whole, tokenizer.eos_token_id]
                labels += [-100] * masked + whole[masked:] + [tokenizer.eos_token_id]
            out.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
            count += 1
            tokens += len(ids)
    return {"rows": count, "tokens": tokens, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    kind, source, folder, work = sys.argv[1:]
    Path(work).mkdir(parents=True, exist_ok=True)
    print(json.dumps({"map": chat_map, "loop": round_loop}[kind](source, folder, Path(work))))
