"""Voilà with a check of the Host header, a limit on kernels, and care for those kept ready."""

from __future__ import annotations

import ipaddress
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import Application, ErrorHandler, HTTPError
from traitlets import Int
from voila.app import Voila

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


def is_own_host(name: str) -> bool:
    """Whether a Host header may mean this machine: an address, localhost or the machine's own name.

    A page elsewhere that lets its name lead here (DNS rebinding) has neither.

    >>> is_own_host("127.0.0.1"), is_own_host("localhost"), is_own_host("evil.example")
    (True, True, False)
    """
    try:
        return bool(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower() in ("localhost", socket.gethostname().lower())


class OwnHosts(Application):
    """A tornado application that answers 403 to other hosts' names."""

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        """Find what answers a request."""
        if is_own_host(request.host_name):
            return super().find_handler(request, **kwargs)
        return self.get_handler_delegate(request, ErrorHandler, {"status_code": 403})


class Server(Voila):
    """Voilà for one application: no log-in, no other host."""

    def init_handlers(self) -> list:
        """Handlers of the application's addresses."""
        self.app.__class__ = OwnHosts  # Voilà makes the application itself
        return [handler for handler in super().init_handlers() if "log" not in str(handler[0])]


if __name__ == "__main__":
    Server.launch_instance()
