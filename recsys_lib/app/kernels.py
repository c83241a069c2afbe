"""How the server starts and ends kernels."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError
from traitlets import Int

GRACE = 20.0  # seconds from the page that is sent to the connection of its kernel


class KernelManager(AsyncMappingKernelManager):
    """Ends idle kernels, not those that have just been given to a page, and starts no more than it may.

    A kernel kept ready has been idle for as long as nobody came. Between its page being sent and that page's
    connection it would look like one that was left alone, and be ended: the page would never come up.
    """

    most = Int(24, config=True, help="Kernels at once.")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._idle_since: dict[str, float] = {}

    async def start_kernel(self, **kwargs: Any) -> str:
        """Start a kernel unless there are too many: then the page says so."""
        if len(self) >= self.most:
            raise HTTPError(503, reason="All places are taken. Please load the page again in some minutes.")
        return await super().start_kernel(**kwargs)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel that is idle and was so ``GRACE`` seconds ago; Voilà does not ask for those kept ready."""
        kernel, now = self._kernels[kernel_id], time.monotonic()
        idle = datetime.now(UTC) - kernel.last_activity > timedelta(seconds=self.cull_idle_timeout)
        if not idle or self._kernel_connections.get(kernel_id, 0):
            self._idle_since.pop(kernel_id, None)
        elif now - self._idle_since.setdefault(kernel_id, now) >= GRACE:
            del self._idle_since[kernel_id]
            await super().cull_kernel_if_idle(kernel_id)
