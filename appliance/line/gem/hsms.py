"""HSMS-SS (SEMI E37.1), the passive side, for secsgem's GEM: one accepted connection that peers cannot stall, flood or outlive.

secsgem 0.3 has a transport of its own, which sends in pieces that it does not finish, waits for ever on a peer that does not
read, takes any length that a header promises, and does not notice that nobody answers a linktest.
"""

from __future__ import annotations

import queue
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import secsgem.common
import secsgem.hsms
from secsgem.hsms.message import HsmsBlock, HsmsMessage
from secsgem.hsms.stream_function_header import HsmsStreamFunctionHeader

LONGEST_MESSAGE = 1 << 20  # bytes; what a host says is short
HEADER_BYTES = 10
MOST_WAITING = 64  # messages received and not looked at
_S_TYPES = {kind.value for kind in secsgem.hsms.HsmsSType}


class Connection(secsgem.common.Connection):
    """An accepted socket, read by a thread of its own.

    Args:
        settings: of the protocol.
        accepted: the socket; blocking.
        t8_s: longest pause within a message, either way.
        on_end: called with the reason, once, when nothing more will come.
    """

    def __init__(self, settings: Settings, accepted: socket.socket, t8_s: float, on_end: Callable[[str], None]) -> None:
        super().__init__(settings)
        self._socket, self._t8_s, self._on_end = accepted, t8_s, on_end
        self._why: str | None = None
        self._thread = threading.Thread(target=self._receive, name="hsms", daemon=True)
        accepted.setblocking(True)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        whole = int(t8_s)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", whole, int((t8_s - whole) * 1e6)))

    def enable(self) -> None:
        """Begin."""
        self._connected = True
        self.on_connected({"source": self})
        self._thread.start()

    def disable(self) -> None:
        """End, and wait until it has ended."""
        self.end("this station ended the connection")
        self._thread.join()

    def end(self, why: str) -> None:
        """Let nothing more come or go; the first reason counts."""
        self._why = self._why or why
        self._connected = False
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send_data(self, data: bytes) -> bool:
        """Send all of it; False where the peer is gone or takes nothing for T8."""
        try:
            self._socket.sendall(data)
        except BlockingIOError:
            self.end("the host reads nothing")
            return False
        except OSError as error:
            self.end(f"the host is gone: {error.strerror}")
            return False
        return True

    def _receive(self) -> None:
        try:
            while True:
                message = self._message()
                self.on_data({"source": self, "data": message})
        except (OSError, EOFError, ValueError) as error:
            self.end(str(error))
        finally:
            try:
                self._socket.close()
                self.on_disconnected({"source": self})
            finally:
                self._on_end(self._why or "")

    def _message(self) -> bytes:
        """The next message with its length before it.

        Raises:
            EOFError, OSError: no more will come.
            ValueError: what comes is no HSMS.
        """
        head = self._read(4, whenever=True)
        [length] = struct.unpack(">L", head)
        if not HEADER_BYTES <= length <= LONGEST_MESSAGE:
            raise ValueError(f"no HSMS: a message of {length} bytes, wanted {HEADER_BYTES} to {LONGEST_MESSAGE}")
        body = self._read(length)
        if body[4] != 0 or body[5] not in _S_TYPES:
            raise ValueError(f"no HSMS: PType {body[4]}, SType {body[5]}")
        return head + body

    def _read(self, count: int, *, whenever: bool = False) -> bytes:
        """So many bytes; `whenever`: the first of them may take its time."""
        found = b""
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        while len(found) < count:
            if not (whenever and not found) and not ready.poll(self._t8_s * 1e3):
                raise ValueError(f"a message stops after {len(found)} of {count} bytes")
            more = self._socket.recv(count - len(found))
            if not more:
                raise EOFError("the host closed the connection")
            found += more
        return found


class Protocol(secsgem.hsms.HsmsProtocol):
    """HSMS on one connection: who waits for an answer learns that none will come, and what is not understood is answered (S9)."""

    _settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._linktest_timeout = settings.linktest_s
        self._sending = threading.Lock()
        self._thread._dispatch_queue = queue.Queue(MOST_WAITING)  # a host that floods waits

    def send_message(self, message: Any) -> bool:
        """Send a message, from any thread; False where the host is gone."""
        with self._sending:
            return all(self._connection.send_data(block.encode()) for block in message.blocks)

    def _on_connection_data_received(self, data: dict[str, Any]) -> None:
        self._thread.queue_block(self, HsmsBlock.decode(data["data"]))

    def _on_disconnected(self, data: dict[str, Any]) -> None:
        super()._on_disconnected(data)
        self._thread._stop_dispatcher_thread = True  # secsgem forgets this one of its two threads
        self._thread._dispatcher_thread_trigger.set()
        for waiting in list(self._response_queues.values()):
            waiting.put_nowait(None)

    def _on_linktest_timer(self) -> None:
        if self.send_linktest_req() is None:
            self._connection.end("the host does not answer a linktest")
        elif self._connected:
            self._start_linktest_timer()

    def _on_connection_message_received(self, source: object, message: Any) -> None:
        header = message.header
        if header.s_type is secsgem.hsms.HsmsSType.SEPARATE_REQ:
            self._connection.end("the host ended the connection")
            return
        if header.s_type is secsgem.hsms.HsmsSType.DATA_MESSAGE:
            answer = self._not_understood(message)
            if answer is not None:
                self.send_message(answer)
                return
        super()._on_connection_message_received(source, message)

    def _not_understood(self, message: Any) -> HsmsMessage | None:
        """S9F1, F3, F5 or F7: unknown device, stream or function, or data that is not as the function has it."""
        header, known = message.header, self._settings.streams_functions
        if header.session_id != self._settings.session_id:
            return self._s9(1, message)
        if known.function(header.stream, header.function) is None:
            any_of_it = any(known.function(header.stream, function) for function in range(256))
            return self._s9(5 if any_of_it else 3, message)
        try:
            known.decode(message)
        except Exception:  # noqa: BLE001  (secsgem's decoder: whatever it falls over is the host's)
            return self._s9(7, message)
        return None

    def _s9(self, function: int, message: Any) -> HsmsMessage:
        said = self._settings.streams_functions.function(9, function)(message.header.encode())
        head = HsmsStreamFunctionHeader(self.get_next_system_counter(), 9, function, False, self._settings.session_id)
        return HsmsMessage(head, said.encode())


class Settings(secsgem.hsms.HsmsSettings):
    """What secsgem makes a protocol and a connection of.

    Args:
        accepted: the socket.
        device_id: 0..32767.
        t3_s, t6_s, t8_s: longest wait for an answer, for one of HSMS itself, and within a message.
        linktest_s: between two looks whether the host is there.
        on_end: called with the reason when the connection has ended.
    """

    def __init__(
        self, accepted: socket.socket, *, device_id: int, t3_s: float, t6_s: float, t8_s: float, linktest_s: float,
        on_end: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__(
            connect_mode=secsgem.hsms.HsmsConnectMode.PASSIVE, device_type=secsgem.common.DeviceType.EQUIPMENT,
            session_id=device_id, t3=t3_s, t6=t6_s, t8=t8_s,
        )  # fmt: skip
        self.linktest_s = linktest_s
        self._accepted, self._t8_s, self._on_end = accepted, t8_s, on_end

    def create_protocol(self) -> Protocol:
        """Of the one connection."""
        return Protocol(self)

    def create_connection(self) -> Connection:
        """The one connection."""
        return Connection(self, self._accepted, self._t8_s, self._on_end)
