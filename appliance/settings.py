"""umbra.toml -> one frozen Settings, read once at start-up and passed down as values."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from appliance.errors import RefusedError
from engines import EngineChoice, Precision, Target
from kernels import Layout

LayoutName = Literal["u8", "u16le", "u16be", "raw10", "raw12", "raw14", "packed10", "packed12", "packed14"]
SETTINGS_FILE = "umbra.toml"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RawFormat(_Section):
    """Geometry of headerless files that have no sidecar. The first that matches a file's path and size is used."""

    match: str = Field("*", description="glob over <product>/<lot>/<name>.<ext>")
    width: int = Field(ge=1, le=32768, description="pixels")
    height: int = Field(ge=1, le=32768, description="pixels")
    layout: LayoutName = Field(description="how samples are packed (docs/formats.md)")
    stride: int | None = Field(None, ge=1, description="bytes from row to row; default: a row without padding")
    offset: int = Field(0, ge=0, description="bytes before the first row")
    bits: int | None = Field(None, ge=1, le=16, description="significant bits; default: those of the layout")

    @field_validator("layout", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def kernel_layout(self) -> Layout:
        """The layout as the kernels know it."""
        return Layout[self.layout.upper()]

    @property
    def row_stride(self) -> int:
        """Bytes from row to row."""
        return self.stride or self.kernel_layout.row_bytes(self.width)

    @property
    def file_sizes(self) -> tuple[int, int]:
        """Bytes of a whole file, with and without the padding of its last row."""
        head = self.offset + self.row_stride * (self.height - 1)
        return head + self.row_stride, head + self.kernel_layout.row_bytes(self.width)


class WatchSettings(_Section):
    """When a file in the inbox is taken for complete."""

    rescan_s: float = Field(1.0, gt=0, le=3600, description="seconds between two full looks at the inbox")
    settle_s: float = Field(
        1.0, ge=0, le=3600, description="size and time must rest this long, unless the writer closed it"
    )
    incomplete_s: float = Field(
        10.0,
        ge=0,
        le=86400,
        description="an unreadable file is tried again, and one open for writing waited for, until it rested this long",
    )
    mounted: bool = Field(False, description="the inbox is a mount: while nothing is mounted there, it is not ready")
    ignore: tuple[str, ...] = Field(
        (".*", "*.tmp", "*.part", "*.crdownload", "*~", "truth.csv"),
        description="file names that are never frames (globs)",
    )


class LimitSettings(_Section):
    """What is refused before it is read or allocated, and what a process that decodes may use."""

    pixels: int = Field(150_000_000, ge=1, description="pixels of a frame")
    file_bytes: int = Field(1 << 30, ge=1, description="bytes of a file, and of its content where compressed")
    decode_s: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="processor seconds that decoding a frame may take; by the wall clock twice as long",
    )
    decode_bytes: int = Field(4 << 30, ge=1 << 30, description="address space of a process that decodes, bytes")


class EngineSettings(_Section):
    """The engines."""

    bundle: str = Field("starter", description="bundle used until another one is activated")
    target: Target = Field(Target.OPENVINO, description="openvino, tensorrt, tensorrt_rtx or torch_cuda")
    precision: Precision | None = Field(
        None,
        description="openvino: int8, bf16 or f32; tensorrt: fp16 or int8; the others: fp16. None: the first of these",
    )
    threads: int = Field(0, ge=0, le=1024, description="cores for inference; 0: all")
    max_batch: int = Field(16, ge=1, le=1024, description="frames at once on a GPU, at most")
    batch_wait_ms: float = Field(5.0, ge=0, le=1000, description="longest wait for a batch on a GPU to fill")

    golden_s: float = Field(3600.0, ge=1, description="seconds between two measurements of the golden frames")

    @model_validator(mode="after")
    def _fits(self) -> EngineSettings:
        self.choice  # noqa: B018  (its errors name what does not fit)
        return self

    @property
    def choice(self) -> EngineChoice:
        """What runs the bundle."""
        return EngineChoice(
            target=self.target, precision=self.precision, threads=self.threads, max_batch=self.max_batch
        )


class ApiSettings(_Section):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8765, ge=0, le=65535, description="TCP port; 0: any free one")
    token_sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the bearer token that writes need; none: writes are off",
    )


class MqttSettings(_Section):
    """A broker that is told of every verdict."""

    host: str = Field(min_length=1, description="the broker's name or address")
    port: int = Field(1883, ge=1, le=65535, description="its TCP port; 8883 is usual with tls")
    prefix: str = Field("umbra", pattern=r"^[^#+\x00]+$", description="topics begin with it, then the station's name")
    username: str | None = Field(None, description="as the broker knows this station")
    password_file: Path | None = Field(None, description="file that holds the password, readable by the station alone")
    tls: bool = Field(False, description="speak TLS, and check the broker's certificate")
    ca_file: Path | None = Field(None, description="certificates to check it by; none: those of the system")
    keepalive_s: int = Field(
        30, ge=5, le=3600, description="the broker publishes the last will after 1.5 times as long"
    )
    timeout_s: float = Field(10.0, gt=0, le=600, description="longest wait for an answer")


class SecsGemSettings(_Section):
    """A SECS/GEM host that connects to this station over HSMS."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(5000, ge=1, le=65535, description="TCP port")
    device_id: int = Field(0, ge=0, le=32767, description="of this station")
    control: Literal["local", "remote"] = Field(
        "local", description="remote: the host may start, stop and set limits; local: it only reads"
    )
    t3_s: float = Field(45.0, ge=1, le=120, description="T3, longest wait for an answer")
    t6_s: float = Field(5.0, ge=1, le=240, description="T6, longest wait for an answer of HSMS itself")
    t7_s: float = Field(10.0, ge=1, le=240, description="T7, longest time without a selected session")
    t8_s: float = Field(5.0, ge=1, le=120, description="T8, longest pause within a message")
    linktest_s: float = Field(30.0, ge=1, le=3600, description="between two looks whether the host is there")


class OpcUaSettings(_Section):
    """OPC UA hosts that connect to this station."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(4840, ge=1, le=65535, description="TCP port")
    application_uri: str = Field("urn:umbra:station", pattern=r"^urn:\S+$", description="as the certificate has it")
    username: str | None = Field(None, description="who may connect; none: anybody")
    password_file: Path | None = Field(None, description="file that holds the password, readable by the station alone")
    certificate: Path | None = Field(None, description="of this server, PEM or DER; with it everything is encrypted")
    private_key: Path | None = Field(None, description="of the certificate, PEM")
    again_s: float = Field(10.0, ge=0.1, le=600, description="what is not acknowledged for this long is told again")

    @model_validator(mode="after")
    def _belong_together(self) -> OpcUaSettings:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file: wanted both or none")
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key: wanted both or none")
        if self.username is not None and self.certificate is None:
            raise ValueError("username: wants certificate and private_key, or the password is sent in the clear")
        return self


class FilesSettings(_Section):
    """Verdict files in the outbox."""

    done: bool = Field(False, description="beside each verdict file, once it is whole, <name>.done with its number")


class LotSettings(_Section):
    """Files of whole lots."""

    rest_s: float = Field(600.0, ge=0, le=604800, description="a lot is written when nothing came to it for this long")


class LineSettings(_Section):
    """Hosts on the line that are told of verdicts; each is off without its section."""

    name: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="of this station among others; none: the machine's and the folder's",
    )
    files: FilesSettings = FilesSettings()
    mqtt: MqttSettings | None = None
    secs_gem: SecsGemSettings | None = None
    opcua: OpcUaSettings | None = None
    stdf: LotSettings | None = None
    wafer_map: LotSettings | None = None

    @property
    def has_hosts(self) -> bool:
        """Whether the process is wanted that tells them."""
        return bool(self.protocols)

    @property
    def protocols(self) -> dict[str, _Section]:
        """The protocols that are on, by the names of their modules in appliance/line."""
        found = {name: getattr(self, name) for name in ("mqtt", "secs_gem", "opcua", "stdf", "wafer_map")}
        return {name: settings for name, settings in found.items() if settings is not None}


class DiskSettings(_Section):
    """The station's disk."""

    low_bytes: int = Field(500_000_000, ge=0, description="less free space than this: not ready")
    stop_bytes: int = Field(100_000_000, ge=0, description="less free space than this: nothing is screened")
    keep_images: bool = Field(True, description="keep the stretched image and unseen map of each frame in images.db")


class RetentionSettings(_Section):
    """What `umbra retain` deletes. 0: nothing for this reason. Labeled frames and their pictures stay."""

    images_days: float = Field(0, ge=0, description="pictures of frames older than this")
    images_bytes: int = Field(0, ge=0, description="the oldest pictures, until no more than this is left")
    done_days: float = Field(0, ge=0, description="frames that lay in done/ longer")
    done_bytes: int = Field(0, ge=0, description="the oldest frames in done/, until no more than this is left")
    quarantine_days: float = Field(0, ge=0, description="files that lay in quarantine/ longer")
    outbox_days: float = Field(0, ge=0, description="verdict files older than this")
    verdicts_days: float = Field(0, ge=0, description="verdicts older than this; wants outbox_days no longer")
    free_bytes: int = Field(0, ge=0, description="the oldest pictures, then frames in done/, until this much is free")

    @model_validator(mode="after")
    def _files_go_first(self) -> RetentionSettings:
        if self.verdicts_days and not 0 < self.outbox_days <= self.verdicts_days:
            raise ValueError(f"verdicts_days {self.verdicts_days:g}: wants outbox_days from 0 to as many")
        return self


class Settings(_Section):
    """All of umbra.toml."""

    capture_failed: Literal["retest", "fail"] = Field("retest", description="verdict of class Error")
    name_pattern: str | None = Field(
        r"(?:^|[_-])[wW](?P<wafer>[A-Za-z0-9]+)[_-][xX](?P<x>-?\d+)[_-][yY](?P<y>-?\d+)",
        description="regular expression searched in a frame's name; groups wafer, x and y are its die position",
    )
    engine: EngineSettings = EngineSettings()
    watch: WatchSettings = WatchSettings()
    limits: LimitSettings = LimitSettings()
    api: ApiSettings = ApiSettings()
    disk: DiskSettings = DiskSettings()
    retention: RetentionSettings = RetentionSettings()
    line: LineSettings = LineSettings()
    format: Annotated[
        tuple[RawFormat, ...], Field(description="geometry of headerless files, one [[format]] each")
    ] = ()

    @field_validator("name_pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None and not {"wafer", "x", "y"} & set(re.compile(value).groupindex):
            raise ValueError("wanted at least one of the named groups wafer, x and y")
        return value


def read_settings(station: Path) -> Settings:
    """The settings of a station; defaults where it has no umbra.toml.

    Raises:
        RefusedError: the file is not TOML, or a key is unknown or out of range.
    """
    path = station / SETTINGS_FILE
    if not path.exists():
        return Settings()
    try:
        return Settings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise RefusedError(f"{path}: not TOML: {error}") from error
    except (ValidationError, re.error) as error:
        problems = (
            error.errors() if isinstance(error, ValidationError) else [{"loc": ("name_pattern",), "msg": str(error)}]
        )
        lines = [f"{'.'.join(str(part) for part in p['loc'])}: {p['msg']}" for p in problems]
        raise RefusedError(f"{path}: " + "; ".join(lines)) from error
