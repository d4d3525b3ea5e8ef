"""Reads what wandb wrote offline: records of its protobuf, framed like a LevelDB log."""

import json
import struct
from pathlib import Path

from wandb.proto import wandb_internal_pb2

_BLOCK = 32768
_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_LAST_KINDS = (1, 4)  # a whole record, or the last part of one


def read_records(path):
    """Every record of a .wandb file, in order."""
    data = path.read_bytes()
    position, parts = 7, b""  # the file begins with a 7-byte header of wandb's own
    while position + _HEADER.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER.size:
            position += left
            continue
        _, length, kind = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        parts += data[position : position + length]
        position += length
        if kind in _LAST_KINDS:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def _items(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class OfflineRun:
    """One offline run.

    Name, group, tags, config, history, final summary, exit code, the metric on the x-axis, and by type of artifact the
    files of each with their digests.
    """

    def __init__(self, folder):
        (path,) = folder.glob("*.wandb")
        self.history, self.summary, self.exit_code = [], {}, None
        self.artifacts, self.digests, self.x_axis = {}, {}, None
        for record in read_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.id, self.group = record.run.run_id, record.run.run_group
                self.name, self.job_type = record.run.display_name, record.run.job_type
                self.tags = list(record.run.tags)
                self.config = _items(record.run.config.update)
            elif kind == "history":
                self.history.append(_items(record.history.item))
            elif kind == "summary":
                self.summary |= _items(record.summary.update)
            elif kind == "metric" and record.metric.glob_name == "*":
                self.x_axis = record.metric.step_metric
            elif kind == "artifact":
                files = record.artifact.manifest.contents
                self.artifacts[record.artifact.type] = {each.path: Path(each.local_path) for each in files}
                self.digests |= {each.path: each.digest for each in files}
            elif kind == "exit":
                self.exit_code = record.exit.exit_code
