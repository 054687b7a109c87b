"""fdatasync by the kernel: io_submit(2) with ``IOCB_CMD_FDSYNC`` (Linux 4.18), through caio.

A thread that syncs needs the interpreter lock to begin and to tell of the end, and waits both
times until the loop's thread gives it away. The kernel needs no lock: the loop hands it a file,
and a descriptor becomes readable when it is done. Only the loop's thread is here.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial

from raftq.disk import Ended

AT_ONCE = 8  # A node has one journal, and a journal one sync in flight.


class KernelSyncs:
    """Syncs of files on one loop. OSError where the kernel has none to give."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            from caio.linux_aio import Context, Operation  # Not to be imported on older kernels.

            self._context = Context(AT_ONCE)
        except (ImportError, SystemError) as error:
            raise OSError(str(error)) from error
        self._sync = Operation.fdsync
        loop.add_reader(self._context.fileno, self._some_ended)

    def begin(self, descriptor: int, ended: Ended) -> bool:
        """See ``File.begin_sync``."""
        operation = self._sync(descriptor)
        operation.set_callback(partial(_tell, ended))
        try:
            taken: int = self._context.submit(operation)
        except (SystemError, ValueError, OverflowError):  # By its errno.
            return False
        return taken == 1

    def _some_ended(self) -> None:
        self._context.poll()
        self._context.process_events(AT_ONCE)


def _tell(ended: Ended, result: int) -> None:
    """``ended`` must not raise: an exception would be lost here."""
    # Minus the errno, which caio makes an unsigned number of.
    code = -result & 0xFFFF_FFFF
    ended(OSError(code, os.strerror(code)) if code else None)
