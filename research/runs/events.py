"""TensorBoard event files: scalars, pictures, hyper-parameters, chart layouts and the projector.

Of the `tensorboard` package only the message types are imported, which takes about 30 ms. Its record writer would
import a stand-in for TensorFlow first, which takes 200 ms. The format of a record is short: length, checksum of the
length, data, checksum of the data.
"""

# The message types are made when their module is imported, so that a type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

import io
import math
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from research.runs.files import Held, clear_errors, write_atomically

NAME = "events.out.tfevents.0000000000.run"  # fixed, so that a later command appends to the same file
Row = tuple[int, float, Mapping[str, float | None]]  # step, wall time in seconds since 1970, values

# ------------------------------------------------------------------------------------------------------ records


def _checksum_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = _checksum_table()


def _checksum(data: bytes) -> int:
    """The masked CRC-32C that follows every part of a record."""
    table, value = TABLE, 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    value ^= 0xFFFFFFFF
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _record(event: Event) -> bytes:
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", _checksum(length)), data, struct.pack("<I", _checksum(data))))


def _records(content: bytes) -> Iterator[bytes]:
    """The data of each whole record; an unfinished last record, which a killed process left, is skipped."""
    position = 0
    while position + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        end = position + 16 + length
        if end > len(content):
            return
        yield content[position + 12 : end - 4]
        position = end


# --------------------------------------------------------------------------------------------------------- events


class EventFile:
    """The event file of one run. Every method opens the file, appends and closes it, so that no file handle is kept.

    New values of a tag replace those in the file from their first step on, so that a run that is resumed or evaluated
    again repeats nothing.

    Args:
      folder: of the run.
      lease: the lease under which the file is written.
    """

    def __init__(self, folder: Path | str, lease: Held):
        self.path, self.lease = Path(folder) / NAME, lease
        self._last: dict[str, int] | None = None  # tag -> largest step in the file

    def append(self, scalars: Iterable[Row]) -> None:
        """Append rows of scalars. NaN and infinities are kept; None is left out."""
        events = []
        for step, wall_time, values in scalars:
            entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None]
            if entries:
                events.append(Event(step=step, wall_time=wall_time, summary=Summary(value=entries)))
        self._write(events)

    def images(self, pictures: Mapping[str, bytes], step: int, wall_time: float | None = None) -> None:
        """Append pictures, PNG bytes by tag."""
        values = []
        for tag, data in pictures.items():
            width, height = struct.unpack_from(">II", data, 16)  # of the PNG header
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
            values.append(Summary.Value(tag=tag, image=image))
        self._add(values, step, wall_time)

    def hparams(self, values: Mapping[str, Any], started: float | None = None, group: str = "") -> None:
        """Write the values of the swept keys in this run, a row of TensorBoard's HParams page.

        There is no experiment record, so that the page takes every scalar tag of the runs as a metric and shows its
        last value. Pass values through `unify` first, so that a key has one type in all runs.
        """
        start = SessionStartInfo(start_time_secs=time.time() if started is None else started, group_name=group)
        for name, value in values.items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                start.hparams[name].number_value = value
            else:
                start.hparams[name].string_value = str(value)
        data = HParamsPluginData(session_start_info=start)
        self._plugin("_hparams_/session_start_info", "hparams", data.SerializeToString(), started)

    def finish(self, completed: bool, ended: float | None = None) -> None:
        """Mark the run as ended on the HParams page, completed or failed."""
        status = STATUS_SUCCESS if completed else STATUS_FAILURE
        end = SessionEndInfo(status=status, end_time_secs=time.time() if ended is None else ended)
        data = HParamsPluginData(session_end_info=end)
        self._plugin("_hparams_/session_end_info", "hparams", data.SerializeToString(), ended)

    def text(self, tag: str, markdown: str) -> None:
        """Write Markdown for TensorBoard's Text page."""
        tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=TensorShapeProto())
        self._plugin(tag, "text", b"", None, tensor)

    def layout(self, tags: Iterable[str], margins: Sequence[str] = ()) -> None:
        """Lay out the Custom Scalars page.

        Tags of `train/`, `validation/` and `test/` that share a name are drawn in one chart. Every tag in `margins`
        gets a chart with a band between `within_one_sd/<tag>/low` and `within_one_sd/<tag>/high`.
        """
        shared: dict[str, list[str]] = {}
        for tag in sorted(tags):
            part, _, name = tag.partition("/")
            if part in ("train", "validation", "test"):
                shared.setdefault(name, []).append(tag)
        charts = [
            Chart(title=name, multiline=MultilineChartContent(tag=[f"^{re.escape(tag)}$" for tag in tags_of_name]))
            for name, tags_of_name in shared.items()
            if len(tags_of_name) > 1
        ]
        series = MarginChartContent.Series
        bands = [
            Chart(
                title=tag,
                margin=MarginChartContent(
                    series=[series(value=tag, lower=f"within_one_sd/{tag}/low", upper=f"within_one_sd/{tag}/high")]
                ),
            )
            for tag in margins
        ]
        sections = (("train, validation and test", charts), ("mean and spread over seeds", bands))
        content = Layout(category=[Category(title=title, chart=chart) for title, chart in sections if chart])
        if content.category:
            tensor = TensorProto(dtype=DT_STRING, string_val=[content.SerializeToString()])
            self._plugin("custom_scalars__config__", "custom_scalars", b"", None, tensor)

    # ----------------------------------------------------------------------------------------------------- file

    def _plugin(
        self, tag: str, plugin: str, content: bytes, when: float | None, tensor: TensorProto | None = None
    ) -> None:
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content))
        if tensor is None:  # the content is in the metadata, but TensorBoard expects a value too
            tensor = TensorProto(dtype=DT_FLOAT, float_val=[0.0], tensor_shape=TensorShapeProto())
        self._add([Summary.Value(tag=tag, metadata=metadata, tensor=tensor)], 0, when)

    def _add(self, values: list[Summary.Value], step: int, wall_time: float | None) -> None:
        if values:
            when = time.time() if wall_time is None else wall_time
            self._write([Event(step=step, wall_time=when, summary=Summary(value=values))])

    def _write(self, events: list[Event]) -> None:
        if not events:
            return
        if self._last is None:
            self._last = self._open()
        first: dict[str, float] = {}
        last: dict[str, int] = {}
        for event in events:
            for value in event.summary.value:
                first[value.tag] = min(event.step, first.get(value.tag, math.inf))
                last[value.tag] = max(event.step, last.get(value.tag, -1))
        if any(step <= self._last.get(tag, -1) for tag, step in first.items()):
            self._cut(first)
        self.lease.check()
        with clear_errors(self.path.parent), open(self.path, "ab") as file:
            file.write(b"".join(map(_record, events)))
        self._last |= last

    def _open(self) -> dict[str, int]:
        """Make the file, or cut off its unfinished last record; return the last step of each tag."""
        if not self.path.exists():
            write_atomically(self.path, _record(Event(wall_time=time.time(), file_version="brain.Event:2")), self.lease)
            return {}
        content = self.path.read_bytes()
        last: dict[str, int] = {}
        whole = 0
        for data in _records(content):
            whole += len(data) + 16
            event = Event.FromString(data)
            for value in event.summary.value:
                last[value.tag] = max(event.step, last.get(value.tag, -1))
        if whole < len(content):
            write_atomically(self.path, content[:whole], self.lease)
        return last

    def _cut(self, first: Mapping[str, float]) -> None:
        """Drop the values of each tag from a step on."""
        kept = []
        for event in map(Event.FromString, _records(self.path.read_bytes())):
            values = [value for value in event.summary.value if event.step < first.get(value.tag, math.inf)]
            if not values and event.HasField("summary"):
                continue
            if len(values) < len(event.summary.value):
                event.summary.CopyFrom(Summary(value=values))
            kept.append(_record(event))
        write_atomically(self.path, b"".join(kept), self.lease)


def unify(members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Swept values of all runs with one type for each key, as the HParams page needs it: numbers, flags or text."""
    kinds: dict[str, Callable[[Any], Any]] = {}
    for name in {name: None for member in members for name in member}:
        present = [member[name] for member in members if name in member]
        if all(isinstance(value, bool) for value in present):
            kinds[name] = bool
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
            kinds[name] = float
        else:
            kinds[name] = _text
    return [{name: kinds[name](value) for name, value in member.items()} for member in members]


def _text(value: Any) -> str:
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


# ------------------------------------------------------------------------------------------ pictures and projector


def png(picture: np.ndarray) -> bytes:
    """A picture [H, W] or [H, W, 3] uint8 as PNG."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
        raise ValueError(f"picture of shape {picture.shape}, {picture.dtype}: expected [H, W] or [H, W, 3] uint8")
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def projector(
    folder: Path | str,
    lease: Held,
    codes: np.ndarray,
    labels: np.ndarray | None,
    sprite: tuple[np.ndarray, int, int] | None = None,
) -> None:
    """Write codes for TensorBoard's projector: `projector/codes.tsv`, `labels.tsv` and `projector_config.pbtxt`.

    Args:
      folder: of the run.
      lease: the lease under which it is written.
      codes: [N, L].
      labels: classes of the rows, [N], or None.
      sprite: pictures of the rows in one square grid [H, W] or [H, W, 3] uint8, row by row, and height and width of a
        picture; or None.
    """
    folder = Path(folder)
    line = "\t".join(["%.6g"] * codes.shape[1]) + "\n"
    lines = ["embeddings {", '  tensor_name: "codes"', '  tensor_path: "projector/codes.tsv"']
    text = "".join([line % tuple(row) for row in codes.tolist()])
    write_atomically(folder / "projector" / "codes.tsv", text.encode(), lease)
    if labels is not None:
        text = "".join(f"{label}\n" for label in labels.tolist())
        write_atomically(folder / "projector" / "labels.tsv", text.encode(), lease)
        lines.append('  metadata_path: "projector/labels.tsv"')
    if sprite is not None:
        grid, height, width = sprite
        write_atomically(folder / "projector" / "sprite.png", png(grid), lease)
        lines.append('  sprite { image_path: "projector/sprite.png"')
        lines.append(f"    single_image_dim: {width} single_image_dim: {height} }}")
    write_atomically(folder / "projector_config.pbtxt", "\n".join([*lines, "}", ""]).encode(), lease)
