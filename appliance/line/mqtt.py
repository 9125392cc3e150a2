"""MQTT 5: each verdict once acknowledged (QoS 1) below <prefix>/<station>/verdicts, and the station's state, retained.

A broker that loses the station publishes its last will: {"online": false} as the state.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from appliance.errors import ApplianceError, RefusedError
from appliance.line.feed import Feed
from appliance.settings import MqttSettings
from appliance.station import Station, is_recent
from appliance.verdict import Row, document

STATE_S = 0.5
FAREWELL_S = 2.0
OFFLINE = json.dumps({"online": False})


class RefusedByBrokerError(ApplianceError):
    """The broker answered that it does not take a message."""


def topic_of(base: str, row: Row) -> str:
    """<base>/verdicts/<product>/<lot>; what means something in a topic is escaped as in an address."""
    return f"{base}/verdicts/{quote(row['product'], safe=' ')}/{quote(row['lot'], safe=' ')}"


def properties_of(row: Row) -> Properties:
    """MQTT 5's own: that it is JSON, in UTF-8, and its number, by which a message that comes again is known."""
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    made.ContentType = "application/json"
    made.PayloadFormatIndicator = 1
    made.UserProperty = [("seq", str(row["seq"]))]
    return made


class _Broker:
    """A connected broker; a message that it refuses is an error, which aiomqtt passes over."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._refused: ReasonCode | None = None
        told: Any = client._client.on_publish  # aiomqtt drops the reason code that comes with it

        def on_publish(paho: Any, userdata: Any, mid: int, reason: ReasonCode, properties: Properties) -> None:
            if reason.is_failure:
                self._refused = reason
            if told is not None:
                told(paho, userdata, mid, reason, properties)

        client._client.on_publish = on_publish

    async def publish(
        self, topic: str, payload: str, *, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """Publish, and wait until the broker has it.

        Raises:
            RefusedByBrokerError: it does not want it.
            aiomqtt.MqttError: it is gone, or does not answer.
        """
        self._refused = None
        await self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if self._refused is not None:
            raise RefusedByBrokerError(f"{topic}: the broker refuses: {self._refused}")


async def run(station: Station, settings: MqttSettings, feed: Feed, stopping: asyncio.Event) -> None:
    """Tell one broker until told to stop.

    Raises:
        aiomqtt.MqttError, OSError, RefusedByBrokerError: it is not there, does not answer, or refuses.
        RefusedError: the password cannot be read.
    """
    name = station.line_name
    base = f"{settings.prefix}/{quote(name, safe=' ')}"
    tls = ssl.create_default_context(cafile=settings.ca_file) if settings.tls else None
    async with aiomqtt.Client(
        settings.host, settings.port, protocol=aiomqtt.ProtocolVersion.V5, identifier=f"umbra-{name}",
        username=settings.username, password=_password(settings), tls_context=tls, timeout=settings.timeout_s,
        keepalive=settings.keepalive_s, will=aiomqtt.Will(f"{base}/state", OFFLINE, qos=1, retain=True),
    ) as client:  # fmt: skip
        telling = asyncio.create_task(_tell(station, _Broker(client), base, feed, stopping))
        lost: Any = client._disconnected  # the one sign of a connection that is lost while nothing is told
        try:
            await asyncio.wait((telling, lost), return_when=asyncio.FIRST_COMPLETED)
            if not telling.done():
                raise ConnectionResetError("the broker is gone")
            await telling
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            # aiomqtt takes its leave cleanly whatever happened, and then the broker publishes no last will
            with suppress(aiomqtt.MqttError):
                await client.publish(f"{base}/state", OFFLINE, qos=1, retain=True, timeout=FAREWELL_S)


async def _tell(station: Station, broker: _Broker, base: str, feed: Feed, stopping: asyncio.Event) -> None:
    told = ""
    while not stopping.is_set():
        state = json.dumps({"online": True, **_state(station)})
        if state != told:
            await broker.publish(f"{base}/state", state, retain=True)
            told = state
        feed.is_told()
        for row in await feed.rows(within_s=STATE_S):
            body = json.dumps(document(row), ensure_ascii=False, separators=(",", ":"))
            await broker.publish(topic_of(base, row), body, properties=properties_of(row))
            await feed.acknowledge(row["seq"])
            if stopping.is_set():
                return


def _password(settings: MqttSettings) -> str | None:
    if settings.password_file is None:
        return None
    try:
        return settings.password_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise RefusedError(f"line.mqtt.password_file cannot be read: {type(error).__name__}") from None


def _state(station: Station) -> dict[str, Any]:
    """What a host wants to know of the station; only what changes seldom, so that little is published."""
    state = station.read_state() or {}
    told = {key: state.get(key) for key in ("ready", "reasons", "bundle", "engine")}
    if not is_recent(state):
        told |= {"ready": False, "reasons": ["the screener says nothing"]}
    return told
