"""Several processes that take blocks side by side; their results come in the order of the blocks.

Python runs one thread at a time, so workers are processes. On Linux they are forks: the tokenizer that
was loaded before is shared between them, not loaded again by each.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from common.errors import RunError, UserError
from common.process import die_with_parent

T = TypeVar("T")
S = TypeVar("S")

# What a tokenizer remembers of the words it has seen grows with the input; new workers begin without it.
ITEMS_A_POOL = 128

START_METHOD = "fork" if sys.platform == "linux" else "spawn"

_work: Callable[[Any], Any]  # of a worker: what it does with an item


def in_order(items: Iterable[S], work: Callable[[S], T], workers: int) -> Iterator[T]:
    """work(item) of every item, in their order, `workers` at a time; at most twice as many are held.

    The first item is worked on in this process, and all of them where `workers` is 0. `work`, items and
    results are pickled. Raises what `work` or `items` raise, the first one in the order of the items;
    RunError where a worker was killed.
    """
    source = iter(items)
    yield from map(work, itertools.islice(source, 1 if workers else None))
    for first in source:
        yield from _with_pool(itertools.chain([first], itertools.islice(source, ITEMS_A_POOL - 1)), work, workers)


def _with_pool(items: Iterable[S], work: Callable[[S], T], workers: int) -> Iterator[T]:
    pool = ProcessPoolExecutor(workers, get_context(START_METHOD), _begin, (work,))
    try:
        # A worker must not take Ctrl-C for its parent before it has begun
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool.submit(os.getpid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield from _results(pool, items, 2 * workers)
    except BrokenProcessPool:
        hint = "where memory ran out, use fewer --workers"
        raise RunError("a worker process was killed", found="it ended before its work", hint=hint) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _results(pool: ProcessPoolExecutor, items: Iterable[S], room: int) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    failure = None
    source = iter(items)
    while failure is None:
        try:
            item = next(source)
        except StopIteration:
            break
        except UserError as error:  # what stands before it in the file is told first
            failure = error
            break
        waiting.append(pool.submit(_run, item))
        if len(waiting) >= room:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
    if failure is not None:
        raise failure


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    die_with_parent()
    # Ctrl-C reaches every process of the terminal: workers end at once, and only the parent speaks.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _work = work


def _run(item: Any) -> Any:
    return _work(item)


def default_workers() -> int:
    """As many as the machine has for this process, at most four: more only wait for the writer."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 4)
