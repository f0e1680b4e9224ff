"""Reads what trackers have written: TensorBoard's event files, and the file of an offline run of Weights & Biases."""

import json
import struct
from pathlib import Path
from typing import Any

_BLOCK = 1 << 15


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that TensorBoard shows of a folder: tag -> (step, value), as its own reader takes them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def wandb_records(path: Path) -> list[Any]:
    """The records in a `run-ID.wandb`: protocol buffers in LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part, records = path.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while at < len(data):
        if _BLOCK - at % _BLOCK < 7:  # the rest of a block
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part, at = part + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(part)
            records.append(record)
            part = b""
    return records


def wandb_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that were logged, each with `_step`."""
    rows = (record.history for record in wandb_records(path) if record.HasField("history"))
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row.item} for row in rows]
