"""How the server ends kernels that nobody uses any more."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

GRACE = 20.0  # seconds; from the page that is sent to the connection of its kernel


class KernelManager(AsyncMappingKernelManager):
    """Ends idle kernels, and not those that have just been given to a page.

    A kernel kept ready has been idle for as long as nobody came. Between its page being sent and that page's
    connection it would look like one that was left alone, and be ended: the page would never come up.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._idle_since: dict[str, float] = {}

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel that is idle and was so ``GRACE`` seconds ago; Voilà does not ask for those kept ready."""
        kernel, now = self._kernels[kernel_id], time.monotonic()
        idle = datetime.now(UTC) - kernel.last_activity > timedelta(seconds=self.cull_idle_timeout)
        if not idle or self._kernel_connections.get(kernel_id, 0):
            self._idle_since.pop(kernel_id, None)
        elif now - self._idle_since.setdefault(kernel_id, now) >= GRACE:
            del self._idle_since[kernel_id]
            await super().cull_kernel_if_idle(kernel_id)
