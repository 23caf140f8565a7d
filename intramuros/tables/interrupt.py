"""Ctrl-C while DuckDB works: it stops a statement at once, and what is in flight is finished.

Python runs a signal's handler in the main thread, between two of its own instructions; while that
thread is inside DuckDB none runs. So a second thread is woken by the signal itself. Does nothing
outside the main thread, where signals are not heard.
"""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import duckdb

from intramuros.run import Session

INSIST = 0.05
"""Seconds between two interrupts of a statement that is to stop."""


@contextmanager
def interruptible(session: Session, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let Ctrl-C cancel the session's run and interrupt the connection's statement.

    A handler that stands already is called as well; without one, the second Ctrl-C raises
    KeyboardInterrupt as ever.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if previous is signal.default_int_handler:
            signal.signal(signal.SIGINT, previous)
            session.cancel()
        else:
            previous(number, frame)

    heard, wakened = socket.socketpair()
    wakened.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(heard, session, connection), daemon=True)
    watcher.start()
    earlier = signal.set_wakeup_fd(wakened.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, previous)
        signal.set_wakeup_fd(earlier)
        wakened.close()
        watcher.join()
        heard.close()


def _watch(heard: socket.socket, session: Session, connection: duckdb.DuckDBPyConnection) -> None:
    """Wait for SIGINT, which arrives as a byte, or for the end, which arrives as none."""
    while numbers := heard.recv(64):
        if signal.SIGINT in numbers:
            break
    else:
        return
    session.cancel()
    heard.settimeout(INSIST)
    while numbers:
        # More than once: DuckDB forgets an interrupt that comes just before a statement starts.
        connection.interrupt()
        try:
            numbers = heard.recv(64)
        except TimeoutError:
            continue
