"""Ctrl+C around code that takes it for itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored_interrupt() -> Iterator[None]:
    """Lightning switches Ctrl+C off while it shuts down; put back what was there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
