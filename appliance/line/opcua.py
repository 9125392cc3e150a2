"""OPC UA server: the station's state and newest verdict as nodes, every verdict as an event that a host acknowledges by a method.

OPC UA itself has no acknowledgement of events: what a host has not acknowledged by AcknowledgeResults is told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hmac
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from asyncua import Server, ua, uamethod
from asyncua.common.callback import CallbackType
from asyncua.common.node import Node
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.event_generator import EventGenerator
from asyncua.server.user_managers import UserManager

from appliance import log as events
from appliance.errors import RefusedError
from appliance.line.feed import Feed
from appliance.line.fields import SILENT, STATE_FIELDS, VERDICT_FIELDS, Field, Kind
from appliance.settings import OpcUaSettings
from appliance.station import Station
from appliance.verdict import Row, document

NAMESPACE = "urn:umbra:line"
STATE_S = 0.5
LOOK_S = 0.1
PUBLISHING_MS = 50.0  # the shortest interval that a host gets
MOST_AT_ONCE = 100  # events that wait for an acknowledgement, at most
LONGEST_PAUSE_S = 60.0  # between two times that the same is told
SEVERITY = {"PASS": 100, "RETEST": 400, "FAIL": 600}
_TYPES = {
    Kind.TEXT: ua.VariantType.String, Kind.REAL: ua.VariantType.Double, Kind.WHOLE: ua.VariantType.Int32,
    Kind.LARGE: ua.VariantType.UInt64, Kind.FLAG: ua.VariantType.Boolean,
}  # fmt: skip
PREVIOUS = Field("Previous", Kind.LARGE, lambda told: told["previous"])  # the verdict that was told before this one


_log = events.get()


class _Users(UserManager):
    """One name and one password."""

    def __init__(self, name: str, password: str) -> None:
        self._name, self._password = name, password

    def get_user(
        self, iserver: Any, username: str | None = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        """The user; None where name or password are others."""
        del iserver, certificate
        given = password.encode() if isinstance(password, str) else password or b""
        is_known = hmac.compare_digest((username or "").encode(), self._name.encode())
        return (
            User(role=UserRole.User, name=self._name)
            if is_known & hmac.compare_digest(given, self._password.encode())
            else None
        )


class _Space:
    """The nodes that hosts see.

    Args:
        server: initialised.
        index: of our namespace.
    """

    def __init__(self, server: Server, index: int) -> None:
        self._server, self._index = server, index
        self._nodes: dict[str, tuple[Field, Node]] = {}
        self._told: dict[str, Any] = {}

    async def build(self, name: str) -> tuple[Node, EventGenerator]:
        """Make the nodes of a station of this name; the folder of results, and what sends events."""
        station = await self._server.nodes.objects.add_object(self._id("Station"), self._name(name))
        state = await station.add_folder(self._id("State"), self._name("State"))
        results = await station.add_folder(self._id("Results"), self._name("Results"))
        latest = await results.add_folder(self._id("Results.Latest"), self._name("Latest"))
        text = Field("Document", Kind.TEXT, lambda told: json.dumps(told, ensure_ascii=False))
        cursor = (
            Field("Acknowledged", Kind.LARGE, lambda told: told["cursor"]),
            Field("Waiting", Kind.LARGE, lambda told: told["behind"]),
        )
        for folder, where, fields in (
            (state, "State", STATE_FIELDS), (latest, "Results.Latest", (*VERDICT_FIELDS, text)), (results, "Results", cursor),
        ):  # fmt: skip
            for one in fields:
                kind = _TYPES[one.kind]
                node = await folder.add_variable(
                    self._id(f"{where}.{one.name}"), self._name(one.name), ua.get_default_value(kind), kind
                )
                await self._write(one, node, None)
                self._nodes[f"{where}.{one.name}"] = one, node
        kind = await self._server.create_custom_event_type(
            self._index, "VerdictEventType", ua.ObjectIds.BaseEventType,
            [(one.name, _TYPES[one.kind]) for one in (*VERDICT_FIELDS, PREVIOUS)],
        )  # fmt: skip
        events = await self._server.get_event_generator(kind, ua.ObjectIds.Server)
        events.event.SourceNode, events.event.SourceName = station.nodeid, name
        return results, events

    async def add_method(
        self, folder: Node, name: str, call: Any, takes: list[tuple[str, Any]], gives: list[tuple[str, Any, int]]
    ) -> None:
        """A method; `takes` by name and type, `gives` by name, type and rank."""
        await folder.add_method(
            self._id(f"Results.{name}"), self._name(name), call,
            [_argument(given, kind) for given, kind in takes],
            [_argument(given, kind, rank) for given, kind, rank in gives],
        )  # fmt: skip

    async def tell(self, where: str, source: Mapping[str, Any]) -> None:
        """Write the nodes of a folder whose values changed; what is null has the status GoodNoData."""
        for path, (one, node) in self._nodes.items():
            if path.rpartition(".")[0] != where:
                continue
            value = one.read(source)
            if path in self._told and self._told[path] == value:
                continue
            self._told[path] = value
            await self._write(one, node, value)

    async def _write(self, field: Field, node: Node, value: Any) -> None:
        known = value is not None
        told = ua.DataValue(
            ua.Variant(value, _TYPES[field.kind]) if known else ua.Variant(None),
            StatusCode=ua.StatusCode(ua.StatusCodes.Good if known else ua.StatusCodes.GoodNoData),
            SourceTimestamp=dt.datetime.now(dt.UTC),
        )
        if not known:
            told.Value = None  # a Variant without a value is refused as one of another type
        await self._server.write_attribute_value(node.nodeid, told)

    def _id(self, name: str) -> ua.NodeId:
        return ua.NodeId(ua.String(name), ua.Int16(self._index))

    def _name(self, name: str) -> ua.QualifiedName:
        return ua.QualifiedName(name, self._index)


class _Port:
    """Tells the hosts that are connected; whichever acknowledges, acknowledges for all."""

    def __init__(self, station: Station, settings: OpcUaSettings, feed: Feed, stopping: asyncio.Event) -> None:
        self._station, self._settings, self._feed, self._stopping = station, settings, feed, stopping
        self._waiting: deque[int] = deque()  # told and not acknowledged
        self._window = MOST_AT_ONCE // 10
        self._highest = feed.cursor  # that was told at any time
        self._pause_s = settings.again_s
        self._again_at = 0.0
        self._subscribed = self._progress = False

    async def run(self) -> None:
        self._server = server = await _make(self._station, self._settings)
        space = _Space(server, await server.register_namespace(NAMESPACE))
        results, self._events = await space.build(self._station.line_name)
        await space.add_method(
            results, "AcknowledgeResults", uamethod(self._acknowledge), [("Seq", ua.ObjectIds.UInt64)], []
        )
        await space.add_method(
            results,
            "NextResults",
            uamethod(self._next),
            [("Most", ua.ObjectIds.UInt32)],
            [("Documents", ua.ObjectIds.String, 1)],
        )
        server.subscribe_server_callback(
            CallbackType.ItemSubscriptionCreated, lambda created, _: self._somebody_listens(created)
        )
        async with server:
            telling = asyncio.create_task(self._tell_nodes(space))
            try:
                while not self._stopping.is_set():
                    if telling.done():
                        telling.result()
                    await self._step(server)
            finally:
                telling.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await telling

    async def _step(self, server: Server) -> None:
        """Tell what may be told now, or wait a little."""
        if not server.bserver or not server.bserver.clients:
            self._feed.is_not_told("no host is connected")
            self._waiting.clear()
            await self._rest(STATE_S)
            return
        now = asyncio.get_running_loop().time()
        if self._subscribed:
            self._subscribed, self._pause_s = False, self._settings.again_s
            self._waiting.clear()
        elif self._progress:
            self._progress, self._pause_s = False, self._settings.again_s
            self._again_at = now + self._pause_s
            self._window = min(MOST_AT_ONCE, 2 * self._window)
            self._feed.is_told()
        elif self._waiting and now >= self._again_at:
            self._feed.is_not_told(f"verdict {self._waiting[0]} was told and is not acknowledged")
            self._waiting.clear()
            self._window = max(1, self._window // 2)
            self._pause_s = max(self._settings.again_s, min(LONGEST_PAUSE_S, 2 * self._pause_s))
        elif not self._waiting and self._pause_s == self._settings.again_s:
            self._feed.is_told()
        if len(self._waiting) >= self._window:
            await self._rest(LOOK_S)
            return
        if not self._waiting:
            self._again_at = now + self._pause_s
        previous = self._waiting[-1] if self._waiting else self._feed.cursor
        for row in (await self._feed.rows(within_s=LOOK_S, after=previous))[: self._window - len(self._waiting)]:
            if self._subscribed:
                return  # who has just come begins with the first one that waits
            await self._send(row, previous)
            previous = row["seq"]

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _send(self, row: Row, previous: int) -> None:
        told = document(row) | {"previous": previous}
        event = self._events.event
        for one in (*VERDICT_FIELDS, PREVIOUS):
            setattr(event, one.name, one.read(told))
        event.Severity = SEVERITY[row["verdict"]]
        said = f"{row['name']}: {row['verdict']}" + (f", {row['reason']}" if row["reason"] else "")
        event.Message = ua.LocalizedText(said)
        self._waiting.append(row["seq"])
        self._highest = max(self._highest, row["seq"])
        service = self._server.iserver.subscription_service
        for number in list(service.subscriptions):
            try:
                await self._events.trigger(
                    time_attr=dt.datetime.fromisoformat(row["decided_at"]), subscription_id=number
                )
            except Exception as error:  # noqa: BLE001  (a filter that asyncua falls over: that host's alone)
                _log.error(
                    events.HOST_REFUSED,
                    host=self._feed.name,
                    subscription=number,
                    reason=f"{type(error).__name__}: {error}",
                )
                await service.delete_subscriptions([number])

    def _somebody_listens(self, created: Any) -> None:
        asked = created.request_params.ItemsToCreate
        if any(item.ItemToMonitor.AttributeId == ua.AttributeIds.EventNotifier for item in asked):
            self._subscribed = True

    async def _acknowledge(self, _parent: Any, seq: int) -> Any:
        """A host has this verdict and all before it."""
        if type(seq) is not int or seq < 0:
            return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
        if seq > self._highest:
            return ua.StatusCode(ua.StatusCodes.BadOutOfRange)
        await self._feed.acknowledge(seq)
        while self._waiting and self._waiting[0] <= seq:
            self._waiting.popleft()
        self._progress = True
        return None

    async def _next(self, _parent: Any, most: int) -> Any:
        """The documents of the verdicts after the last acknowledged one, for hosts that do not take events."""
        if type(most) is not int or most < 0:
            return ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
        rows = (await self._feed.rows(within_s=0, after=self._feed.cursor))[:most]
        self._highest = max([self._highest, *(row["seq"] for row in rows)])
        documents = [json.dumps(document(row), ensure_ascii=False) for row in rows]
        return ua.Variant(documents, ua.VariantType.String, is_array=True)

    async def _tell_nodes(self, space: _Space) -> None:
        while True:
            await space.tell("State", self._station.recent_state() or SILENT)
            await space.tell("Results", await self._feed.state())
            newest = await self._feed.newest()
            if newest is not None:
                await space.tell("Results.Latest", document(newest))
            await asyncio.sleep(STATE_S)


async def _make(station: Station, settings: OpcUaSettings) -> Server:
    """A server with its security, which does not listen yet.

    Raises:
        RefusedError: a file that umbra.toml names cannot be read.
    """
    users = None
    if settings.username is not None and settings.password_file is not None:
        try:
            users = _Users(settings.username, settings.password_file.read_text(encoding="utf-8").strip())
        except (OSError, ValueError) as error:
            raise RefusedError(f"line.opcua.password_file cannot be read: {type(error).__name__}") from None
    server = Server(user_manager=users)
    await server.init()
    server.set_server_name(f"Umbra {station.line_name}")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    server.set_endpoint(f"opc.tcp://{host}:{settings.port}/umbra")
    await server.set_application_uri(settings.application_uri)
    server.allow_remote_admin(allow=False)
    server.set_identity_tokens([ua.AnonymousIdentityToken if users is None else ua.UserNameIdentityToken])
    policies = [ua.SecurityPolicyType.NoSecurity]
    if settings.certificate is not None and settings.private_key is not None:
        policies = [
            ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt, ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt
        ]  # fmt: skip
        try:
            await server.load_certificate(settings.certificate)
            await server.load_private_key(settings.private_key)
        except (OSError, ValueError) as error:
            raise RefusedError(f"line.opcua.certificate or private_key cannot be read: {error}") from error
    server.set_security_policy(policies)
    _keep_from_spinning(server)
    return server


def _keep_from_spinning(server: Server) -> None:
    """A host that asks for a publishing interval next to nothing gets PUBLISHING_MS; asyncua gives what is asked for."""
    service = server.iserver.subscription_service
    create = service.create_subscription

    async def create_slower(params: Any, *rest: Any, **named: Any) -> Any:
        params.RequestedPublishingInterval = max(params.RequestedPublishingInterval, PUBLISHING_MS)
        return await create(params, *rest, **named)

    service.create_subscription = create_slower


def _argument(name: str, kind: int, rank: int = -1) -> ua.Argument:
    return ua.Argument(Name=name, DataType=ua.NodeId(kind), ValueRank=rank, Description=ua.LocalizedText(name))


async def run(station: Station, settings: OpcUaSettings, feed: Feed, stopping: asyncio.Event) -> None:
    """Be there for hosts until told to stop.

    Raises:
        OSError: the port cannot be listened at.
        RefusedError: a file that umbra.toml names cannot be read.
    """
    await _Port(station, settings, feed, stopping).run()
