"""Evaluate one checkpoint, of this project or a published one, and record the result."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig

from robust_arch.analysis.report.card import write_card
from robust_arch.architectures import AnyArch, Classifier, CustomArch, ImageShape, cost
from robust_arch.architectures.custom import TARGET
from robust_arch.attacks import ThreatModel
from robust_arch.common.files import write_text
from robust_arch.common.identity import short_hash
from robust_arch.common.plain import is_plain, shown
from robust_arch.common.progress import prefixed
from robust_arch.configuration.evaluation import read_evaluation, read_normalisation
from robust_arch.configuration.nodes import built, plain
from robust_arch.configuration.schema import require_known
from robust_arch.configuration.settings import job_command, read_custom, read_flag, read_results_dir, read_study_name
from robust_arch.data import Dataset, ImageSet, Splits
from robust_arch.data.recorded import recorded_dataset
from robust_arch.errors import InputError, invalid, require_choice
from robust_arch.evaluation import EvaluationRecord, Subject, extend, select_examples
from robust_arch.evaluation.alternatives import try_alternatives
from robust_arch.evaluation.checks import Check
from robust_arch.execution.choices import trained_threads
from robust_arch.execution.run import spec_facts
from robust_arch.interop import LoadedCheckpoint, open_checkpoint
from robust_arch.interop.normalisation import FROM_DATASET, FROM_OUTSIDE, Normalisation, checked, identity
from robust_arch.runs import RunFacts, RunFolder, StudyFolder
from robust_arch.runs.provenance import provenance
from robust_arch.runs.records import WEIGHTS
from robust_arch.training.settings import TrainerSettings

log = logging.getLogger(__name__)

_THREAT = "a norm and a radius as the checkpoint's threat model, or threat.norm and threat.eps on the command line"


def evaluate(cfg: DictConfig) -> EvaluationRecord:
    """Evaluate the checkpoint and record it; the checkpoint's file is only read.

    A checkpoint inside a run's folder is recorded with that run, any other as a run of its own in
    results_dir/<study.name>.

    Raises:
        InputError: for a value, file or combination that is not allowed, before anything is written.
    """
    require_known(cfg, "evaluate")
    if not isinstance(cfg.checkpoint, str):
        raise invalid("checkpoint", cfg.checkpoint, "a file, like results/demo/runs/<run_id>/checkpoints/best.ckpt")
    path, rerun = Path(cfg.checkpoint).expanduser(), read_flag(cfg, "rerun")
    if not path.is_file():
        RunFolder(path.parent.parent).require_weights()  # names the machine that has the weights of a merged run
    request = read_normalisation(cfg.evaluate)
    named_splits = cache(lambda: _dataset(cfg, {}).load())
    loaded = open_checkpoint(path, _given_arch(cfg), lambda: _task(named_splits()), _weights(cfg))
    log.info("weights: %s", loaded.weights)
    # plain data: nothing in it is resolved, and Hydra never gets it
    trained = _group(loaded.card, "config", "the configuration of a training, a group of keys")
    dataset = _dataset(cfg, trained)
    threat, settings = _threat(cfg, trained, dataset), read_evaluation(cfg.evaluate)
    splits = named_splits() if cfg.get("data") else dataset.load()
    test = splits.test
    _require_fits(loaded, test)
    normalisation = loaded.normalised(request, splits.train.channel_statistics)
    net = normalisation.applied_to(loaded.net)
    log.info("normalisation: %s", normalisation)
    settings.require_fits(len(test), test.num_classes, threat.eps)
    trainer = _trainer(cfg, trained)
    trainer.prepare_process()
    own = _owning_run(path)
    folder = own or _external_run(cfg, path, normalisation)
    which = path.resolve().stem if own else "external"
    put_before = None if own else normalisation.as_record()
    subject = Subject(folder.run_id, which, loaded.weights, threat, dataset.name, put_before)
    with folder.lock() as mine:
        if not mine:
            raise InputError(f"checkpoint = {str(path)!r}: its run is being worked on by another process")
        record = EvaluationRecord(folder.evaluations, subject, select_examples(test, settings.n))
        if rerun:
            record.forget(settings)
        about = {"command": job_command("robust_arch.evaluate"), **provenance()}
        net.to(trainer.device)
        facts, checks = None if own else _facts(folder, loaded.spec, dataset, test), []
        if facts:
            config = {**plain(cfg, "configuration"), "arch": loaded.spec.to_dict()}
            write_text(folder.config, yaml.safe_dump(config, sort_keys=False))
            folder.write_state("running", facts, attempt=True)
            if not trained and not record.is_complete(settings):
                checks = _try_normalisations(net, normalisation, splits, record, trainer.device, settings.batch_size)
        with prefixed(f"run {folder.run_id}"):
            extend(record, net, settings, threat, trainer.device, about, fold=trainer.fold, checks=checks)
        if facts:
            folder.write_state("completed", facts)
        write_card(folder)
    StudyFolder(folder.path.parents[1]).write_results()
    return record


def _weights(cfg: DictConfig) -> str | None:
    """`evaluate.weights`."""
    if cfg.evaluate.weights is None:
        return None
    require_choice("evaluate.weights", cfg.evaluate.weights, WEIGHTS)
    return str(cfg.evaluate.weights)


def _group(content: Mapping[str, Any], key: str, allowed: str) -> Mapping[str, Any]:
    """The group `key` of a file's content, empty if it is missing."""
    value = content.get(key)
    if value is not None and not isinstance(value, dict):
        raise InputError(f"{key} = {shown(value)}: expected {allowed}")
    return value or {}


def _dataset(cfg: DictConfig, trained: Mapping[str, Any]) -> Dataset:
    """The data set of the command line, else the one of the training."""
    if cfg.get("data"):
        given: Dataset = built(cfg.data, "data", Dataset)
        return given
    if trained.get("data") is None:
        raise invalid("data", None, "the data set to evaluate on, like data=image_folder data.root=<folder>")
    dataset = recorded_dataset(trained["data"])
    log.info("data, as named by the checkpoint: %s", dataset)
    return dataset


def _threat(cfg: DictConfig, trained: Mapping[str, Any], dataset: Dataset) -> ThreatModel:
    """Norm and radius of the command line, else those of the training, else linf and the data set's usual radius."""
    norm, eps = cfg.threat.norm, cfg.threat.eps
    if norm is None or eps is None:
        known = _group(trained, "threat", _THREAT)
        trained_norm, trained_eps = known.get("norm"), known.get("eps")
        if not set(known) <= {"norm", "eps"} or not is_plain(trained_norm) or not is_plain(trained_eps):
            raise InputError(f"threat = {shown(known)}: expected {_THREAT}")
        norm = next(each for each in (norm, trained_norm, "linf") if each is not None)
        eps = trained_eps if eps is None and norm == trained_norm else eps
    ThreatModel(norm, 0)  # an unknown norm has no usual radius: the error names the norm
    if eps is None and isinstance(dataset.eps, Mapping):
        eps = dataset.eps.get(norm)
    if eps is None:
        raise invalid("threat.eps", None, f"a radius, as this data set names none for {norm}")
    return ThreatModel(norm, eps)


def _trainer(cfg: DictConfig, trained: Mapping[str, Any]) -> TrainerSettings:
    """The group `trainer`, with the CPU threads of the training unless the command line has another number."""
    trainer: TrainerSettings = built(cfg.trainer, "trainer", TrainerSettings)
    return trainer if trainer.threads else replace(trainer, threads=trained_threads(trained.get("trainer")))


def _given_arch(cfg: DictConfig) -> Mapping[str, Any] | CustomArch:
    """The fields of the architecture that are set, or the network of the user's own."""
    content = plain(cfg.arch, "arch")
    if TARGET in content:
        return read_custom(content)
    return {key: value for key, value in content.items() if value is not None}


def _task(splits: Splits) -> tuple[int, ImageShape]:
    """Number of classes and shape of images."""
    return splits.test.num_classes, splits.test.image_shape


def _require_fits(loaded: LoadedCheckpoint, test: ImageSet) -> None:
    """Raise InputError where network and data differ in channels or classes, or the user's own network fails."""
    net = loaded.net
    channels, classes = net.normalize.mean.shape[1], test.num_classes
    if channels != test.image_shape[0]:
        raise invalid("data", test.image_shape, f"images of {channels} channels, as the checkpoint takes")
    if isinstance(loaded.spec, CustomArch):
        cost(loaded.spec, classes, test.image_shape)
    outputs = net(test.to_unit(test.images[:1])).shape[1]
    if outputs != classes:
        raise invalid("data", classes, f"as many classes as the checkpoint's {outputs}")


def _owning_run(path: Path) -> RunFolder | None:
    """The run whose best.ckpt or last.ckpt this is, by the layout of a study's folder."""
    path = path.resolve()
    name, folder = path.stem, RunFolder(path.parent.parent)
    is_its_own = name in ("best", "last") and path == folder.checkpoint(name).resolve()
    if not is_its_own or not folder.status:
        return None
    if not folder.trained:
        allowed = "one of a finished training: this run is not, and its weights will change"
        raise invalid("checkpoint", str(path), allowed)
    return folder


def _external_run(cfg: DictConfig, path: Path, normalisation: Normalisation) -> RunFolder:
    """A run of its own for a file from elsewhere, named by its content and a normalisation that is put before it."""
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    run_id = content[:12]
    if normalisation.source in (FROM_OUTSIDE, FROM_DATASET) and not normalisation.is_identity:
        run_id = short_hash([content, normalisation.mean, normalisation.std])
    return StudyFolder(read_results_dir(cfg) / read_study_name(cfg)).run(run_id)


def _facts(folder: RunFolder, spec: AnyArch, dataset: Dataset, test: ImageSet) -> RunFacts:
    """What is known about a checkpoint from elsewhere; how it was trained is not."""
    unknown: dict[str, Any] = dict.fromkeys(("objective", "recipe", "train_threat", "seed", "epochs"))
    costs = spec_facts(spec, cost(spec, test.num_classes, test.image_shape))
    return RunFacts(run_id=folder.run_id, study=folder.path.parents[1].name, data=dataset.name, **costs, **unknown)


def _try_normalisations(
    net: Classifier,
    applied: Normalisation,
    splits: Splits,
    record: EvaluationRecord,
    device: torch.device,
    batch_size: int,
) -> list[Check]:
    """Checks of the network without normalisation and with that of the training images, unless it is scored so."""
    mean, std = splits.train.channel_statistics()
    candidates = [identity(len(mean), "no normalisation")]
    if min(std) > 0:
        candidates.append(checked(mean, std, FROM_DATASET, ("mean", "std")))
    alternatives = {
        str(candidate): candidate.applied_to(net).to(device)
        for candidate in candidates
        if (candidate.mean, candidate.std) != (applied.mean, applied.std)
    }
    parts = [select_examples(splits.train, None), record.examples]
    return try_alternatives(net, alternatives, parts, device, batch_size)
