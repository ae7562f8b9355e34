"""Several processes that take blocks side by side; their results come in the order of the blocks.

Python runs one thread at a time, so workers are processes. On Linux they are forks: the tokenizer that
was loaded before is shared between them, not loaded again by each.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from common.data.handover import Parts, Place, size
from common.errors import RunError
from common.process import die_with_parent

T = TypeVar("T")
S = TypeVar("S")

# What a tokenizer remembers of the words it has seen grows with the input; a new worker begins without it.
ITEMS_A_WORKER = 64

# Items, and bytes of them, that a worker has before it at most: enough while the command packs and writes a
# window of rows, and no more than one where a document is as long as any may be.
_AHEAD = 6
_BYTES_AHEAD = 6 * 2**20

START_METHOD = "fork" if sys.platform == "linux" else "spawn"


def in_order(items: Iterable[S], work: Callable[[S], T], workers: int) -> Iterator[T]:
    """work(item) of every item, in their order, `workers` at a time; at most six times as many are held.

    The first item is worked on in this process, and all of them where `workers` is 0 or this is a daemonic
    process, which may start none. `work`, items and results are pickled. Raises what `work` or `items` raise,
    the first one in the order of the items; RunError where a worker was killed.
    """
    source = iter(items)
    alone = not workers or current_process().daemon
    yield from map(work, itertools.islice(source, None if alone else 1))
    for first in itertools.islice(source, 1):  # no worker where there is no second item
        pool = _Pool(work)
        try:
            pool.start(workers)
            yield from pool.results(itertools.chain([first], source))
        finally:
            pool.close()


class _Pool:
    """Workers, and the places in which items and results are handed over, one for each item that is under way."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._places: list[Place] = []
        self._free: list[int] = []
        self._workers: list[_Worker] = []
        self._done: dict[int, tuple[int, Parts]] = {}
        self._sizes: dict[int, int] = {}  # of the items under way, in bytes

    def start(self, workers: int) -> None:
        """Start the workers; where that fails, `close` ends those that run."""
        shared = START_METHOD == "fork"
        # Through a pipe alone a worker gets an item only when it waits for one: else both might wait to be read
        for place in range(workers * (_AHEAD if shared else 1)):
            self._places.append(Place(shared=shared))
            self._free.append(place)
        for _ in range(workers):
            self._workers.append(_Worker(self._work, self._places))

    def results(self, items: Iterable[Any]) -> Iterator[Any]:
        """What the workers make of `items`, in their order."""
        source = iter(items)
        given = 0
        failure: Exception | None = None
        for number in itertools.count():
            self._receive(0)
            try:
                while failure is None and (worker := self._available()) is not None:
                    item = next(source)
                    place = self._free.pop()
                    parts = self._places[place].put(item)
                    self._sizes[given] = size(parts)
                    worker.give(given, place, parts)
                    given += 1
            except StopIteration:
                pass
            except Exception as error:  # what stands before it in the file is told first
                failure = error
            if number == given:
                break
            while number not in self._done:
                self._receive(None)
            place, parts = self._done.pop(number)
            del self._sizes[number]
            result, problem, where = self._places[place].get(parts)
            self._free.append(place)
            if problem is not None:
                raise problem from RuntimeError("in a worker process:\n" + where)
            yield result
        if failure is not None:
            raise failure

    def _available(self) -> _Worker | None:
        """The worker that has least to do; None where enough is under way or each must finish before it is replaced."""
        if not self._free or sum(self._sizes.values()) >= _BYTES_AHEAD * len(self._workers):
            return None
        for at, worker in enumerate(self._workers):
            if worker.given == ITEMS_A_WORKER and not worker.unfinished:
                worker.end()
                self._workers[at] = _Worker(self._work, self._places)
        able = [worker for worker in self._workers if worker.given < ITEMS_A_WORKER]
        return min(able, key=lambda worker: worker.unfinished, default=None)

    def _receive(self, seconds: float | None) -> None:
        """Note which items are finished; wait for one where `seconds` is None."""
        busy = [worker for worker in self._workers if worker.unfinished]
        ready = wait([worker.pipe for worker in busy], seconds)
        for worker in busy:
            if worker.pipe in ready:
                number, place, parts = worker.receive()
                self._done[number] = (place, parts)

    def close(self) -> None:
        """End all workers, whatever they do."""
        for worker in self._workers:
            worker.end()
        for place in self._places:
            place.close()


class _Worker:
    """A process that works on items, one after the other."""

    def __init__(self, work: Callable[[Any], Any], places: list[Place]) -> None:
        self.given = 0
        self.unfinished = 0
        context: Any = get_context(START_METHOD)
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(os.getpid(), theirs, work, places), daemon=True)
        # A worker must not take Ctrl-C for its parent before it has begun
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def give(self, number: int, place: int, parts: Parts) -> None:
        """Hand over an item; raises RunError where the worker was killed."""
        self.given += 1
        self.unfinished += 1
        with _killed():
            self.pipe.send((number, place, parts))

    def receive(self) -> tuple[int, int, Parts]:
        """A result, as soon as there is one; raises RunError where the worker was killed."""
        with _killed():
            made: tuple[int, int, Parts] = self.pipe.recv()
        self.unfinished -= 1
        return made

    def end(self) -> None:
        self._process.kill()  # it has nothing that would be lost
        self._process.join()
        self.pipe.close()


@contextlib.contextmanager
def _killed() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError):
        hint = "where memory ran out, use fewer --workers"
        raise RunError("a worker process was killed", found="it ended before its work", hint=hint) from None


def _serve(parent: int, pipe: Connection, work: Callable[[Any], Any], places: list[Place]) -> None:
    """What a worker does from its first item on."""
    die_with_parent()
    if os.getppid() != parent:
        return  # it ended before we asked: nothing would end us
    gc.freeze()  # what came with the fork: to look through it would copy it
    # Ctrl-C reaches every process of the terminal: workers end at once, and only the parent speaks.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    made: tuple[Any, Exception | None, str]
    with contextlib.suppress(EOFError, ConnectionError):  # the command is no more
        while True:
            number, place, parts = pipe.recv()
            try:
                made = work(places[place].get(parts)), None, ""
            except Exception as error:
                made = None, error, traceback.format_exc()
            pipe.send((number, place, places[place].put(made)))


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
