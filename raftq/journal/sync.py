"""One sync on its way: made by the journal, begun or run anywhere, taken back by the journal."""

from __future__ import annotations

from collections.abc import Callable

from raftq.disk import Ended, File


class SyncWork:
    """A sync of everything written before ``Journal.begin_sync``."""

    def __init__(
        self,
        files: tuple[File, ...],
        sync_names: Callable[[], None] | None,
        position: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.files = files
        self.position = position
        self.done = False
        self._sync_names = sync_names
        self._failed = failed

    def begin(self, ended: Ended) -> bool:
        """Let the file sync itself; see ``File.begin_sync``. False: it is to be ``run``.

        A failure is one of ``run``, too.
        """
        if self._sync_names is not None or len(self.files) != 1:
            return False

        def end(error: OSError | None) -> None:
            if error is None:
                self.done = True
            else:
                self._failed(error)
            ended(error)

        return self.files[0].begin_sync(end)

    def run(self) -> None:
        """Sync; on any thread. A failure also makes the journal refuse everything after it."""
        try:
            for file in self.files:
                file.sync()
            if self._sync_names is not None:
                self._sync_names()
        except BaseException as error:
            self._failed(error)
            raise
        self.done = True
