"""The records of a finished study in one file, runs.json, small enough for a repository.

It holds what status.json, result.json and the evaluation records say, and the outcome of every test image as one bit
per attack; weights, logs and configurations are left out. Accuracies are not in it: they are counted from the outcomes
whenever it is read. What all runs have in common is written once.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_arch.common.files import read_json
from robust_arch.common.identity import short_hash
from robust_arch.common.statistics import recorded_share
from robust_arch.errors import invalid
from robust_arch.runs.fields import Fields, Identifier, MisfitError, Name, Plain
from robust_arch.runs.folder import NO_OBJECT, RecordedRun, RunFolder, last_line

if TYPE_CHECKING:
    import numpy as np

    from robust_arch.runs.records import Evaluation

NAME = "runs.json"
_SCHEMA = 1
_SHARE = ("count", "n", "percent", "interval")
_OF_A_MACHINE = ("host", "pid", "launcher")
_PROVENANCE = ("command", "commit", "torch_version", "versions", "hardware")
_PATH = re.compile(r"(?<![\w.~/\\-])(?:~|[A-Za-z]:)?[/\\](?:[\w.@+-]+[/\\]?)+")
_QUOTED_PATH = re.compile(r"'([\w.+-]+=)?(?:~|[A-Za-z]:)?[/\\][^']*'")  # with spaces, as in a command
_STATUS, _RESULT, _EVALUATIONS = "status.json", "result.json", "evaluations"


class _Archive(Fields):
    """runs.json.

    Attributes:
        common: what all runs have in common; what is in `runs` is merged into it.
        runs: run_id to the rest of that run.
        images: a name to the arrays that describe the test images of an evaluation, packed.
    """

    common: dict[Name, Plain]
    runs: dict[Identifier, dict[Name, Plain]]
    images: dict[Name, dict[Name, str]]


class ArchivedRun(RunFolder):
    """A run in an archive, which is read as if it had a folder.

    Attributes:
        files: the names of its JSON files to their contents.
        arrays: eval_id to the arrays of the evaluation.
    """

    def __init__(
        self,
        path: Path,
        left_out: dict[str, str],
        files: Mapping[str, dict[str, Any]],
        arrays: Mapping[str, dict[str, np.ndarray]],
    ) -> None:
        super().__init__(path, left_out)
        self.files, self.arrays = files, arrays

    def _content(self, name: str) -> dict[str, Any] | None:
        return self.files.get(name)

    def evaluation_ids(self) -> list[str]:
        """The names of the evaluation records, sorted."""
        return sorted(self.arrays)

    def outcomes(self, eval_id: str) -> dict[str, np.ndarray] | None:
        """The arrays of an evaluation; None if there are none."""
        return self.arrays.get(eval_id)


def read_runs(path: Path, left_out: dict[str, str]) -> Iterator[ArchivedRun]:
    """The runs of an archive, by run_id; none without a file.

    left_out: receives what does not fit, as in `StudyFolder`.
    """
    content = read_json(path)
    if content is None:
        if path.exists():
            left_out[path.name] = NO_OBJECT
        return
    try:
        archive = _Archive.read(content)
    except MisfitError as misfit:
        left_out[path.name] = str(misfit)
        return
    for run_id, own in sorted(archive.runs.items()):
        try:
            files, arrays = _unpack_run(_merged(archive.common, own), archive.images)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            left_out[f"{path.name} run {run_id}"] = f"expected the records of a run ({error!r})"
            continue
        yield ArchivedRun(path.parent / "runs" / run_id, left_out, files, arrays)


def archive_of(runs: Sequence[RecordedRun]) -> dict[str, Any]:
    """The content of runs.json for these runs. Absolute paths, and the names of machines, are left out.

    Raises:
        InputError: if the accuracies of an evaluation record are not those of its outcomes, or these are missing.
    """
    images: dict[str, dict[str, str]] = {}
    packed = {run.run_id: _pack_run(run, images) for run in runs if run.status}
    common = _common(list(packed.values()))
    return {
        "schema": _SCHEMA,
        "common": common,
        "images": images,
        "runs": {run_id: _rest(content, common) for run_id, content in sorted(packed.items())},
    }


def without_paths(value: Any) -> Any:
    """The value with `<path>` instead of every absolute path in its texts."""
    if isinstance(value, str):
        return _PATH.sub("<path>", _QUOTED_PATH.sub(r"'\1<path>'", value))
    if isinstance(value, dict):
        return {key: without_paths(each) for key, each in value.items()}
    return [without_paths(each) for each in value] if isinstance(value, list) else value


def _pack_run(run: RecordedRun, images: dict[str, dict[str, str]]) -> dict[str, Any]:
    """A run's records as one object; adds its test images to `images`."""
    status = run.status.plain() if run.status else {}
    status = {name: value for name, value in status.items() if name not in _OF_A_MACHINE}
    if run.status and run.status.error:
        status["error"] = last_line(run.status.error)
    records = sorted(run.evaluations, key=lambda each: (each.checkpoint, each.weights, each.threat, str(each.eval_id)))
    # named by their order, so that those of different runs have the same names and their common parts are found
    evaluations = {str(place): _pack_evaluation(run, record, images) for place, record in enumerate(records)}
    content = {_STATUS: without_paths(status), _EVALUATIONS: evaluations}
    return content | ({_RESULT: without_paths(run.result.plain())} if run.result else {})


def _pack_evaluation(run: RecordedRun, record: Evaluation, images: dict[str, dict[str, str]]) -> dict[str, Any]:
    """A record with outcomes instead of accuracies, without passed checks and what is in the run's provenance."""
    import numpy as np

    arrays = run.folder.outcomes(record.eval_id or "")
    if arrays is None or not record.is_whole_with(arrays):
        raise invalid("evaluation", f"{run.run_id}/{record.eval_id}", "a record with the outcome of every image")
    content = record.plain()
    if all(check.state == "ok" for check in record.preflight):
        content.pop("preflight", None)
    if run.result and "about" in content:
        own = run.result.plain()
        content["about"] = {name: value for name, value in content["about"].items() if own.get(name) != value}
    flags = {name: array for name, array in arrays.items() if array.dtype == bool}
    others = {name: _text(array.astype("<i4")) for name, array in arrays.items() if name not in flags}
    packed: dict[str, Any] = without_paths(_without_shares(content))
    if _counts(_with_shares(packed, flags)) != _counts(content):
        raise invalid("evaluation", f"{run.run_id}/{record.eval_id}", "the accuracies of its outcomes")
    packed["images"] = short_hash(others)
    images[packed["images"]] = others
    packed["outcomes"] = {name: _text(np.packbits(array)) for name, array in flags.items()}
    return packed


def _counts(content: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The counts behind every accuracy of an evaluation record."""
    worst = [content["worst_case"]] if "worst_case" in content else []
    shares = [content["clean"], *content["attacks"].values(), *worst]
    return [(share["count"], share["n"]) for share in shares]


def _without_shares(content: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation record without the shares that its outcomes give, or their counts alone."""
    shares = {name: _without(content[name]) for name in ("clean", "worst_case") if name in content}
    if "stability" in content:
        shares["stability"] = {name: content["stability"][name] for name in ("count", "n")}
    attacks = {name: _without(attack) for name, attack in content["attacks"].items()}
    return {**content, **shares, "attacks": attacks}


def _without(share: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in share.items() if name not in _SHARE}


def _with_shares(packed: Mapping[str, Any], flags: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `_without_shares`."""
    import numpy as np

    def share(correct: np.ndarray) -> dict[str, Any]:
        return recorded_share(int(correct.sum()), len(correct))

    content = {**packed, "clean": {**packed["clean"], **share(flags["clean"])}}
    content["attacks"] = {name: {**attack, **share(flags[name])} for name, attack in packed["attacks"].items()}
    if "worst_case" in packed:
        names = packed["worst_case"].get("attacks", list(packed["attacks"]))
        worst = np.logical_and.reduce([flags[name] for name in names])
        content["worst_case"] = {**packed["worst_case"], **share(worst)}
    if "stability" in packed:
        content["stability"] = recorded_share(packed["stability"]["count"], packed["stability"]["n"])
    return content


def _unpack_run(
    content: Mapping[str, Any], images: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, np.ndarray]]]:
    """The JSON files of a run by name, and the arrays of its evaluations."""
    files = {name: dict(content[name]) for name in (_STATUS, _RESULT) if name in content}
    arrays = {}
    for packed in content[_EVALUATIONS].values():
        n, eval_id = int(packed["n_test"]), str(packed["eval_id"])
        flags = {name: _bits(text, n) for name, text in packed["outcomes"].items()}
        arrays[eval_id] = {name: _integers(text) for name, text in images[packed["images"]].items()} | flags
        record = {name: value for name, value in packed.items() if name not in ("images", "outcomes")}
        if "about" in record:
            trained = files.get(_RESULT, {})
            record["about"] = {name: trained[name] for name in _PROVENANCE if name in trained} | record["about"]
        files[f"{_EVALUATIONS}/{eval_id}.json"] = _with_shares(record, flags)
    return files, arrays


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _bits(text: str, n: int) -> np.ndarray:
    """(n,) booleans."""
    import numpy as np

    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(packed) != -(-n // 8):
        raise ValueError(f"{len(packed)} bytes for {n} images")
    return np.unpackbits(packed, count=n).astype(bool)


def _integers(text: str) -> np.ndarray:
    import numpy as np

    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<i4")


def _common(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is the same in all of these objects, also inside the objects in them."""
    first, *others = contents or [{}]
    found = {}
    for name, value in first.items():
        values = [other[name] for other in others if name in other]
        if len(values) < len(others):
            continue
        if all(each == value and type(each) is type(value) for each in values):
            found[name] = value
        elif isinstance(value, dict) and all(isinstance(each, dict) for each in values):
            found[name] = _common([value, *values])
    return found


def _rest(content: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """What `_merged` needs beside `common` to give `content`."""
    found = {}
    for name, value in content.items():
        if name not in common:
            found[name] = value
        elif value != common[name]:
            found[name] = _rest(value, common[name])
    return found


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`common` with `own` in it, object by object."""
    found = dict(common)
    for name, value in own.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _merged(found[name], value) if both else value
    return found
