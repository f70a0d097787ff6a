"""What several benchmarks measure with."""

__all__ = ["peak_memory", "seconds"]

import threading
import time
from collections.abc import Callable

import psutil


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_memory(run: Callable[[], object]) -> int:
    """Measure the bytes by which the process grows meanwhile, by a look every few milliseconds."""
    process = psutil.Process()
    before, most, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return max(0, most - before)
