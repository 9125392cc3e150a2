"""Words to systemd: ready, stopping, and the watchdog's food, sent from the working loop."""

from __future__ import annotations

import os
import socket


def notify(message: str) -> None:
    """Send a line to the service manager that started us; nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.sendall(message.encode())
