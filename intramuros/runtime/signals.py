"""Keep a thread's signal stack while OpenVINO is made and unmade.

Compiling and dropping a model, OpenVINO leaves the calling thread with a signal stack of its own
(sigaltstack), and after the drop that memory is gone: the next Ctrl-C in that thread was a
segmentation fault, because Python asks for its handlers to run there. Seen with OpenVINO 2026.4 on
Linux; does nothing elsewhere.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (
        ("pointer", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


def signal_stack() -> SignalStack:
    """The signal stack of this thread as it is now."""
    stack = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give this thread back, at the end, the signal stack that it has now."""
    if sys.platform != "linux":
        yield
        return
    stack = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)
