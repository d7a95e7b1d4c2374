"""Refuse every connection beyond this machine, in this process and in its children.

Python imports a module of this name at start-up when its folder is on PYTHONPATH, which
`tests/conftest.py` sets; so the processes that tests start are shut in as well. An audit hook
cannot be taken out again, and sees the calls of every Python library.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

_NAMED_HERE = {"", "localhost", "localhost.localdomain"}
_WATCHED = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}
"""Audit event → index of its argument that holds the address."""


def is_local(address: object) -> bool:
    """Whether a host, a (host, port, …) or the path of a Unix socket is on this machine."""
    if address is None:
        return True
    if isinstance(address, tuple):
        return is_local(address[0]) if address and not isinstance(address[0], int) else True
    name = address.decode("ascii", "replace") if isinstance(address, bytes) else str(address)
    if name in _NAMED_HERE or name.startswith(("/", "\0")):
        return True
    try:
        return ipaddress.ip_address(name.split("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    index = _WATCHED.get(event)
    if index is not None and not is_local(arguments[index]):
        raise ConnectionRefusedError(
            f"Tests may not leave this machine: {event} {arguments[index]}"
        )


def install() -> None:
    """Shut this process in, once."""
    if not getattr(sys, "_vaner_no_network", False):
        sys._vaner_no_network = True  # type: ignore[attr-defined]
        sys.addaudithook(_refuse)


install()
