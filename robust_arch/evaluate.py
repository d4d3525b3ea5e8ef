"""`python -m robust_arch.evaluate checkpoint=<path>`: evaluate any checkpoint, this project's or a published one."""

import hashlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig

from robust_arch.analysis.report.card import write_card
from robust_arch.architectures import ArchSpec, Classifier, cost
from robust_arch.attacks import ThreatModel
from robust_arch.common.files import write_text
from robust_arch.common.identity import short_hash
from robust_arch.common.plain import is_plain, shown
from robust_arch.common.process import exit_on_sigterm, set_up_logging
from robust_arch.configuration.commands import run_job
from robust_arch.configuration.evaluation import read_evaluation, read_normalisation
from robust_arch.configuration.nodes import built, plain
from robust_arch.configuration.schema import require_known
from robust_arch.configuration.settings import job_command, read_flag, read_results_dir, read_study_name
from robust_arch.data import Dataset, ImageSet, Splits
from robust_arch.data.recorded import recorded_dataset
from robust_arch.errors import InputError, invalid
from robust_arch.evaluation import EvaluationRecord, EvaluationSettings, Subject, extend, select_examples
from robust_arch.evaluation.alternatives import try_alternatives
from robust_arch.evaluation.checks import Check
from robust_arch.execution.run import spec_facts
from robust_arch.interop import LoadedCheckpoint, open_checkpoint
from robust_arch.interop.normalisation import FROM_DATASET, FROM_OUTSIDE, Normalisation, checked, identity
from robust_arch.runs import RunFacts, RunFolder, StudyFolder
from robust_arch.runs.provenance import provenance
from robust_arch.training.settings import TrainerSettings

log = logging.getLogger("robust_arch.evaluate")  # under -m this module is called __main__

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
    path, rerun = Path(str(cfg.checkpoint)).expanduser(), read_flag(cfg, "rerun")
    if not path.is_file():
        RunFolder(path.parent.parent).require_weights()  # of a merged run: says which machine has them
    given = {key: value for key, value in plain(cfg.arch, "arch").items() if value is not None}
    request = read_normalisation(cfg.evaluate)
    loaded, trained = _load(path, given)
    dataset, threat, settings = _task(cfg, trained)
    splits = dataset.load()
    test = splits.test
    _require_fits(loaded.net, test)
    normalisation = loaded.normalised(request, splits.train.channel_statistics)
    net, spec = normalisation.applied_to(loaded.net), loaded.spec
    log.info("normalisation: %s", normalisation)
    settings.require_fits(len(test), test.num_classes, threat.eps)
    trainer = built(cfg.trainer, "trainer", TrainerSettings)
    trainer.prepare_process()
    own = _owning_run(path)
    folder, run_id, which = own or _external_run(cfg, path, normalisation)
    subject = Subject(run_id, which, "raw", threat, dataset.name, None if own else normalisation.as_record())
    with folder.lock() as mine:
        if not mine:
            raise InputError(f"checkpoint = {str(path)!r}: its run is being worked on by another process")
        record = EvaluationRecord(folder.evaluations, subject, select_examples(test, settings.n))
        if rerun:
            record.forget(settings)
        about = {"command": job_command("robust_arch.evaluate"), **provenance()}
        if own is None:
            facts = _facts(folder, spec, dataset, test)
            write_text(folder.config, yaml.safe_dump(_config(cfg, spec), sort_keys=False))
            folder.write_state("running", facts, attempt=True)
            net.to(trainer.device)
            checks = []
            if not trained and not record.is_complete(settings):
                checks = _try_normalisations(net, normalisation, splits, record, trainer.device, settings.batch_size)
            extend(record, net, settings, threat, trainer.device, about, fold=trainer.fold, checks=checks)
            folder.write_state("completed", facts)
        else:
            extend(record, net.to(trainer.device), settings, threat, trainer.device, about, fold=trainer.fold)
        write_card(folder)
    StudyFolder(folder.path.parents[1]).write_results()
    return record


def _load(path: Path, given: dict[str, Any]) -> tuple[LoadedCheckpoint, Mapping[str, Any] | None]:
    """The network with its architecture, and the configuration it was trained with if the file says so.

    The configuration is plain data: nothing in it is resolved, and Hydra never gets it. given: what the command line
    says of the architecture; all of it must hold.
    """
    loaded = open_checkpoint(path, given)
    return loaded, _group(loaded.card, "config", "the configuration of a training, a group of keys")


def _try_normalisations(
    net: Classifier,
    applied: Normalisation,
    splits: Splits,
    record: EvaluationRecord,
    device: torch.device,
    batch_size: int,
) -> list[Check]:
    """The network without normalisation and behind that of the training images, where it is scored with another one."""
    mean, std = splits.train.channel_statistics()
    candidates = [identity(len(mean), "no normalisation")]
    if min(std) > 0:
        candidates.append(checked(mean, std, FROM_DATASET, ("mean", "std")))
    alternatives = {
        str(candidate): candidate.applied_to(net).to(device)
        for candidate in candidates
        if (candidate.mean, candidate.std) != (applied.mean, applied.std)
    }
    return try_alternatives(
        net, alternatives, [select_examples(splits.train, None), record.examples], device, batch_size
    )


def _task(cfg: DictConfig, trained: Mapping[str, Any] | None) -> tuple[Dataset, ThreatModel, EvaluationSettings]:
    """Data, threat model and attacks: what the command line says, else what the checkpoint was trained with."""
    trained = trained or {}
    dataset = _dataset(cfg, trained)
    return dataset, _threat(cfg, trained, dataset), read_evaluation(cfg.evaluate)


def _threat(cfg: DictConfig, trained: Mapping[str, Any], dataset: Dataset) -> ThreatModel:
    """Norm and radius of the command line, else those of the training, else linf and the data set's usual radius."""
    norm, eps = cfg.threat.norm, cfg.threat.eps
    if norm is None or eps is None:
        known = _group(trained, "threat", _THREAT) or {}
        trained_norm, trained_eps = known.get("norm"), known.get("eps")
        if not set(known) <= {"norm", "eps"} or not is_plain(trained_norm) or not is_plain(trained_eps):
            raise InputError(f"threat = {shown(known)}: {_THREAT}")
        norm = next(each for each in (norm, trained_norm, "linf") if each is not None)
        eps = trained_eps if eps is None and norm == trained_norm else eps
    ThreatModel(norm, 0)  # an unknown norm has no usual radius: complain of the norm
    if eps is None and isinstance(dataset.eps, Mapping):
        eps = dataset.eps.get(norm)
    if eps is None:
        raise invalid("threat.eps", None, f"a radius, as this data set names none for {norm}")
    return ThreatModel(norm, eps)


def _group(content: Mapping[str, Any], key: str, allowed: str) -> Mapping[str, Any] | None:
    """The group `key` of what a file says, if it says anything there."""
    value = content.get(key)
    if value is not None and not isinstance(value, dict):
        raise InputError(f"{key} = {shown(value)}: {allowed}")
    return value


def _dataset(cfg: DictConfig, trained: Mapping[str, Any]) -> Dataset:
    if cfg.get("data"):
        given: Dataset = built(cfg.data, "data", Dataset)
        return given
    if trained.get("data") is None:
        raise invalid("data", None, "the data set to evaluate on, like data=image_folder data.root=<folder>")
    dataset = recorded_dataset(trained["data"])
    log.info("data, as the checkpoint names them: %s", dataset)
    return dataset


def _require_fits(net: Classifier, test: ImageSet) -> None:
    """Raise InputError where network and data differ in channels or classes."""
    channels, classes = net.normalize.mean.shape[1], test.num_classes
    if channels != test.image_shape[0]:
        raise invalid("data", test.image_shape, f"images of {channels} channels, as the checkpoint takes")
    outputs = net(test.to_unit(test.images[:1])).shape[1]
    if outputs != classes:
        raise invalid("data", classes, f"as many classes as the checkpoint's {outputs}")


def _owning_run(path: Path) -> tuple[RunFolder, str, str] | None:
    """The run whose best.ckpt or last.ckpt this is, by the layout of a study's folder."""
    path = path.resolve()
    folder = RunFolder(path.parent.parent)
    if path.stem not in ("best", "last") or path != folder.checkpoint(path.stem).resolve() or not folder.status:
        return None
    if not folder.trained:
        raise invalid(
            "checkpoint", str(path), "one of a finished training: this run is not, and its weights will change"
        )
    return folder, folder.run_id, path.stem


def _external_run(cfg: DictConfig, path: Path, normalisation: Normalisation) -> tuple[RunFolder, str, str]:
    """A run of its own for a file from elsewhere, named by its content and a normalisation that is put before it."""
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    digest = content[:12]
    if normalisation.source in (FROM_OUTSIDE, FROM_DATASET) and not normalisation.is_identity:
        digest = short_hash([content, normalisation.mean, normalisation.std])
    study = StudyFolder(read_results_dir(cfg) / read_study_name(cfg))
    return study.run(digest), digest, "external"


def _facts(folder: RunFolder, spec: ArchSpec, dataset: Dataset, test: ImageSet) -> RunFacts:
    """What is known of a checkpoint from elsewhere; how it was trained is not."""
    return RunFacts(
        run_id=folder.run_id,
        study=folder.path.parents[1].name,
        **spec_facts(spec, cost(spec, test.num_classes, test.image_shape)),
        objective=None,
        recipe=None,
        train_threat=None,
        data=dataset.name,
        seed=None,
        epochs=None,
    )


def _config(cfg: DictConfig, spec: ArchSpec) -> dict[str, object]:
    return {**plain(cfg, "configuration"), "arch": spec.to_dict()}


def job(cfg: DictConfig) -> None:
    """The Hydra job."""
    set_up_logging()
    try:
        record = evaluate(cfg)
    # OSError: a full disk or a folder that is not writable; FloatingPointError: logits or gradients that are not finite
    except (InputError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    log.info("recorded in %s", record.json_path)
    for warning in record.content["warnings"]:
        log.warning("%s", warning)
    if record.invalid:
        sys.exit(f"error: {record.summary()} (rerun=true tries again)")
    log.info("%s", record.summary())


def main() -> None:
    """The command."""
    set_up_logging()
    exit_on_sigterm()
    run_job(job, "evaluate")


if __name__ == "__main__":
    main()
