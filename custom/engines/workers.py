"""What a data worker does when it starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def ignore_stop_signals(_: int) -> None:
    """Let only the main process handle SIGINT and SIGTERM: ``worker_init_fn`` of a data loader.

    Ctrl-C and most schedulers signal every process of a job. The main process finishes its step and saves, for which
    its workers must stay alive; they end when the main process stops them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process().pid  # started this one; os.getppid() may be the fork server
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
