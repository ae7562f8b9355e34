"""EmF1Metric, by which the contest measures whether a model still reads as its base did. Not SQuAD's own F1.

Both sides lose some punctuation and are cut into segments: Chinese characters one by one, what stands
between them by jieba. F1 is over the longest run of segments that both have without a gap.

Without Chinese characters jieba's cut does not need its dictionary of 350,000 Chinese words but for five
entries, so it is written out here: no second of loading, and no cache in a directory that others can write.
The tests compare it with jieba 0.42.1.

Standard library only: recipes' environments import this.
"""

from __future__ import annotations

import re

from common.evaluation.squad import Scores

# ASCII . , ? ! ' " stay
_REMOVED = dict.fromkeys(map(ord, "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"))
_CHINESE = re.compile("([\u4e00-\u9fa5])")
_BLOCK = re.compile(r"([\u4e00-\u9fd5a-zA-Z0-9+#&._%\-]+)")
_ENTRIES = re.compile(r"(AT&T|[cC]#|[cC]\+\+)")
"""The words without Chinese characters of jieba's dictionary."""
_WORD = re.compile(r"([a-zA-Z0-9]+(?:\.\d+)?%?)")


def clean(text: str) -> str:
    """`text` as it is compared: lower case, without surrounding space and the punctuation that does not count."""
    return text.lower().strip().translate(_REMOVED)


def segments(text: str) -> list[str]:
    """Chinese characters one by one, and jieba.cut of what stands between them; white space is a segment, too.

    Characters of U+9FA6 to U+9FD5, which jieba takes for Chinese and this metric does not, stand alone.
    """
    found: list[str] = []
    for part in _CHINESE.split(text):
        if _CHINESE.fullmatch(part):
            found.append(part)
        elif part:
            found += _cut(part)
    return found


def _cut(text: str) -> list[str]:
    found: list[str] = []
    for block in _BLOCK.split(text):
        if not _BLOCK.fullmatch(block):
            found += re.findall(r"\r\n|.", block, re.DOTALL)
            continue
        for piece in _ENTRIES.split(block):
            if _ENTRIES.fullmatch(piece):
                found.append(piece)
            else:
                found += [word for word in _WORD.split(piece) if word]
    return found


def score(prediction: str, label: str) -> Scores:
    """F1 and exact match of one answer, 0 to 100. Of the prediction only the first line counts."""
    said, wanted = clean(prediction.strip().split("\n")[0]), clean(label)
    return Scores(_f1(segments(said), segments(wanted)), 100.0 * (said == wanted))


def _f1(said: list[str], wanted: list[str]) -> float:
    common = _longest_common_run(said, wanted)
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 100 * (2 * precision * recall / (precision + recall))


def _longest_common_run(one: list[str], other: list[str]) -> int:
    """The length of the longest contiguous run of segments that both have."""
    best = 0
    before = [0] * (len(other) + 1)
    for segment in one:
        row = [0] * (len(other) + 1)
        for place, each in enumerate(other):
            if segment == each:
                row[place + 1] = before[place] + 1
                best = max(best, row[place + 1])
        before = row
    return best
