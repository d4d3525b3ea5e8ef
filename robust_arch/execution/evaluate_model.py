"""Evaluate any network that takes images in [0, 1]: a record and a card, without a study."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_arch.analysis.report.card import write_model_card
from robust_arch.architectures import Classifier
from robust_arch.architectures.build import Normalize
from robust_arch.architectures.custom import fitting_layout
from robust_arch.attacks import Attack, ThreatModel
from robust_arch.common.files import read_json
from robust_arch.configuration.evaluation import attack_names, named_attack, read_attack, read_dataset
from robust_arch.data import Dataset, ImageSet
from robust_arch.data.images import image_set
from robust_arch.engine.network import without_tf32
from robust_arch.errors import invalid, require_integer, require_name
from robust_arch.evaluation import EvaluationRecord, EvaluationSettings, Examples, NamedAttack, Subject, extend
from robust_arch.evaluation.checks import not_finite
from robust_arch.evaluation.scoring import clean_logits
from robust_arch.runs import Evaluation
from robust_arch.runs.fields import MisfitError
from robust_arch.runs.lock import held
from robust_arch.runs.provenance import provenance

log = logging.getLogger(__name__)

_PROBES = 8  # random images whose logits are part of the network's identity


def evaluate_model(
    net: nn.Module,
    data: str | Dataset | ImageSet | tuple[Any, Any],
    threat: ThreatModel | str,
    attacks: str | Iterable[str] | Mapping[str, Attack] = ("fgsm", "pgd20", "cw40"),
    out: str | Path = "evaluation",
    *,
    n: int | None = None,
    batch_size: int = 250,
    seed: int = 0,
    diagnostics: int | None = None,
    device: torch.device | str | None = None,
    name: str | None = None,
    data_name: str = "images",
    rerun: bool = False,
) -> Evaluation:
    """Evaluate any network, and write the record `<eval_id>.json` and `.npz` and `card.md` into the folder `out`.

    A float32 copy of the network is evaluated, in evaluation mode; `net` itself is only read. A second call for the
    same network, images and threat model computes only what the record lacks. Warnings are logged and recorded; where
    `invalid` of the record is not empty, a check failed and none of its numbers may be used.

    Args:
        net: images (B, C, H, W) in [0, 1] to logits (B, K); its normalisation is inside.
        data: the name of a data set of this package, whose test part is used, like `digits`; a `Dataset`; an
            `ImageSet`; or a pair of arrays or tensors: images (N, C, H, W), uint8 or floating point in [0, 1], and
            labels (N,) from 0 to K - 1.
        threat: what the attacker may do, also as a text like `linf-8/255`.
        attacks: names of attacks of this package, or a mapping from names to attacks.
        out: a folder for this network.
        n: evaluate on so many images, class-stratified by a fixed seed; None for all.
        batch_size: images per batch.
        seed: of the attacks.
        diagnostics: images for the gradient-masking diagnostics; None for none.
        device: where to compute; None for where `net` is.
        name: of the network on the card; None for that of its class.
        data_name: label in the record of images that are not a `Dataset`.
        rerun: compute these attacks again even if they are recorded.

    Returns:
        The record: `clean`, `attacks[name]` and `worst_case`, each with `percent`, `interval` (95%, Wilson) and `n`.

    Raises:
        InputError: for a network, images, labels or settings that are not allowed, before anything is written.
        FloatingPointError: if logits or gradients at attacked images are not finite.
    """
    if not isinstance(net, nn.Module):
        raise invalid("net", type(net).__name__, "a torch.nn.Module")
    name = type(net).__name__ if name is None else name
    for key, label in (("name", name), ("data_name", data_name)):
        require_name(key, label)
    require_integer("seed", seed, 0)
    threat = threat if isinstance(threat, ThreatModel) else ThreatModel.from_text(threat)
    chosen = _attacks(attacks)
    settings = EvaluationSettings(attacks=chosen, n=n, batch_size=batch_size, seed=seed, diagnostics=diagnostics)
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise invalid("out", str(out), "a folder")
    device = _device(net, device)
    with without_tf32(), torch.inference_mode(False):
        test, data_name, copied = _prepare(net, data, data_name, device)
        settings.require_fits(len(test), test.num_classes, threat.eps)
        examples = Examples(test, torch.arange(len(test))).sample(n or len(test))
        with held(folder / ".lock") as mine:
            if not mine:
                raise invalid("out", str(out), "a folder into which no other process evaluates")
            subject = Subject(_identity(copied, test, device), "external", "raw", threat, data_name)
            record = EvaluationRecord(folder, subject, examples)
            record.content["model"] = name
            if rerun:
                record.forget(settings)
            if not record.is_complete(settings):
                logits = clean_logits(copied, examples, device, batch_size)
                if bad := not_finite(logits):
                    raise invalid("net", f"NaN or infinite logits of {bad} of {len(logits)} images", "finite logits")
                about = {"command": "robust_arch.evaluate_model", **provenance()}
                extend(record, copied, settings, threat, device, about)
            params = sum(each.numel() for each in net.parameters())
            write_model_card(folder / "card.md", name, params, _recorded(folder, subject.run_id))
    _tell(record)
    return Evaluation.read(record.content)


def _attacks(attacks: str | Iterable[str] | Mapping[str, Attack]) -> tuple[NamedAttack, ...]:
    if isinstance(attacks, Attack):
        raise invalid("attacks", type(attacks).__name__, "names, or a mapping from names to attacks")
    given = [attacks] if isinstance(attacks, str) else list(attacks)
    if not given or len(set(given)) != len(given):
        raise invalid("attacks", given, "different names, at least one")
    return _own(attacks) if isinstance(attacks, Mapping) else tuple(read_attack(each) for each in given)


def _own(attacks: Mapping[str, Attack]) -> tuple[NamedAttack, ...]:
    """The user's own attacks, under names that are not those of other attacks."""
    for each, attack in attacks.items():
        if not isinstance(each, str) or not each.isidentifier():
            raise invalid("attacks", each, "a name of letters, digits and underscores")
        if not isinstance(attack, Attack):
            raise invalid(f"attacks[{each!r}]", type(attack).__name__, "an Attack")
    found = tuple(named_attack(each, attack, "attacks") for each, attack in attacks.items())
    for named in found:
        if named.name in attack_names() and named.settings != read_attack(named.name).settings:
            raise invalid("attacks", named.name, "another name: this one is that of an attack with other settings")
    return found


def _device(net: nn.Module, device: torch.device | str | None) -> torch.device:
    """The device that is asked for, else the one of the network's tensors."""
    if device is None:
        tensors = (*net.parameters(), *net.buffers())
        return tensors[0].device if tensors else torch.device("cpu")
    try:
        return torch.device(device)
    except RuntimeError:
        raise invalid("device", device, "the name of a device of torch, like cpu or cuda") from None


def _prepare(
    net: nn.Module, data: str | Dataset | ImageSet | tuple[Any, Any], label: str, device: torch.device
) -> tuple[ImageSet, str, Classifier]:
    """Test images, their label in the record, and a copy of the network in evaluation mode on the device."""
    dataset = read_dataset(data) if isinstance(data, str) else data
    if isinstance(dataset, Dataset):
        label, dataset = dataset.name, dataset.load().test
    if isinstance(dataset, ImageSet):
        return dataset, label, _copied(net, dataset, dataset.num_classes, device)[0]
    if not isinstance(dataset, tuple | list) or len(dataset) != 2:
        allowed = "the name of a data set, a Dataset, an ImageSet, or a pair of images and labels"
        raise invalid("data", type(data).__name__, allowed)
    images = image_set(*dataset)
    copied, classes = _copied(net, images, None, device)
    return replace(images, num_classes=classes), label, copied


@torch.no_grad()
def _copied(net: nn.Module, images: ImageSet, classes: int | None, device: torch.device) -> tuple[Classifier, int]:
    """The copy, and the number of its logits per image, which must be `classes` unless that is None."""
    x = images.to_unit(images.images[:2].to(device))
    try:
        network = deepcopy(net).float().eval().to(device)
    except Exception as error:  # the user's own code can raise anything
        raise invalid("net", type(net).__name__, f"a network that copy.deepcopy copies ({error})") from error
    try:
        logits = network(x)
    except Exception as error:  # its own code again
        takes = f"a network that takes images of shape {tuple(x.shape)}; it raised {type(error).__name__}: {error}"
        raise invalid("net", type(net).__name__, takes) from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    fits = isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == len(x) and logits.shape[1] >= 2
    if not fits or classes not in (None, logits.shape[1]):
        raise invalid("net", found, f"logits of shape ({len(x)}, {classes or 'K'}), one per class")
    channels = x.shape[1]
    identity = Normalize([0.0] * channels, [1.0] * channels)
    return Classifier(identity, network, fitting_layout(network, x)).eval().to(device), logits.shape[1]


@torch.no_grad()
def _identity(net: Classifier, images: ImageSet, device: torch.device) -> str:
    """12 hexadecimal digits of the network: its tensors, and its logits at random images, which show its code."""
    digest = hashlib.sha256()
    probes = torch.rand(_PROBES, *images.image_shape, generator=torch.Generator().manual_seed(0))
    tensors = {key: value for key, value in net.state_dict().items() if isinstance(value, Tensor)}
    for key, tensor in {**tensors, "logits": net(probes.to(device))}.items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _recorded(folder: Path, run_id: str) -> Iterator[Evaluation]:
    """The records of this network in the folder."""
    for path in sorted(folder.glob("*.json")):
        with suppress(MisfitError):
            record = Evaluation.read(read_json(path) or {})
            if record.run_id == run_id:
                yield record


def _tell(record: EvaluationRecord) -> None:
    log.info("recorded in %s", record.json_path)
    for warning in record.content["warnings"]:
        log.warning("%s", warning)
    log.log(logging.ERROR if record.invalid else logging.INFO, "%s", record.summary())
