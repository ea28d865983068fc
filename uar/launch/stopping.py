"""SIGTERM ends a command as Ctrl-C does."""

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType

from uar.errors import chain_of


class Stopping:
    """From its making on, SIGTERM raises KeyboardInterrupt, so that what runs is unwound: checkpoints are whole, loggers end
    as failed, processes that were started are ended."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child has nothing to unwind
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self._signal is not None:  # it is unwinding
            return
        self._signal = number
        interrupt = signal.getsignal(signal.SIGINT)  # event loops have their own
        if callable(interrupt):
            interrupt(number, frame)
        else:  # ignored, as in the background of a shell script
            raise KeyboardInterrupt

    def stopped(self, error: BaseException) -> bool:
        """Whether a signal ended the command: SIGTERM, or Ctrl-C, for which Lightning exits with a status of its own."""
        if self._signal is None and any(isinstance(cause, KeyboardInterrupt) for cause in chain_of(error)):
            self._signal = signal.SIGINT
        return self._signal is not None

    def end(self) -> None:
        """Exit with the status that shells give for the signal, once child processes have ended."""
        number = self._signal or signal.SIGINT
        for child in multiprocessing.active_children():
            child.terminate()
            child.join()
        sys.stderr.write(f"error: stopped by {signal.Signals(number).name}; what was finished is kept\n")
        sys.exit(128 + number)
