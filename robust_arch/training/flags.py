"""Warnings about a finished training, from its held-out accuracies."""

import math


def training_flags(rows: list[dict[str, float]], num_classes: int, held_out: int, *, adversarial: bool) -> list[str]:
    """Warnings about a finished training, which are logged and shown with its results.

    rows: of metrics.csv. held_out: number of held-out images. adversarial: whether the objective attacks its images;
    if not, training cannot have overfitted to an attack.
    """
    # a run that has learnt anything is more than three standard deviations of guessing above chance
    chance = 100 / num_classes
    noise = 300 * math.sqrt((1 / num_classes) * (1 - 1 / num_classes) / held_out)
    clean = rows[-1]["val_clean_acc"]
    flags = []
    if clean <= chance + noise:
        flags.append(
            f"collapsed: held-out clean accuracy {clean:.1f}% (n={held_out}) is at chance level, {chance:.1f}%"
        )
    if not all("val_fgsm_acc" in row for row in rows):  # an earlier version did not record it
        return flags
    if adversarial and (epoch := _catastrophic_overfitting(rows, held_out)) is not None:
        then, best = rows[epoch], _best(rows[: epoch + 1])
        flags.append(
            f"catastrophic overfitting: at epoch {epoch + 1} held-out accuracy under the selection attack is "
            f"{then['val_robust_acc']:.1f}% after {best['val_robust_acc']:.1f}% at epoch {int(best['epoch']) + 1}, "
            f"under one step {then['val_fgsm_acc']:.1f}% after {best['val_fgsm_acc']:.1f}% (n={held_out})"
        )
    elif (epoch := _robust_to_one_step_only(rows, held_out)) is not None:
        flags.append(
            f"one step overstates robustness: at epoch {epoch + 1} held-out accuracy is "
            f"{rows[epoch]['val_fgsm_acc']:.1f}% under one step and {rows[epoch]['val_robust_acc']:.1f}% under the "
            f"selection attack (n={held_out})"
        )
    return flags


def _best(rows: list[dict[str, float]]) -> dict[str, float]:
    return max(rows, key=lambda row: row["val_robust_acc"])


def _catastrophic_overfitting(rows: list[dict[str, float]], held_out: int) -> int | None:
    """The first epoch, counted from 0, at which single-step training has lost its robustness (Wong et al. 2020).

    There accuracy under the selection attack is below half of its best so far, and further below than chance explains,
    while accuracy under one step has not fallen: the network has learned to fool the single step.
    """
    for number, row in enumerate(rows):
        best = _best(rows[: number + 1])
        before, now = best["val_robust_acc"], row["val_robust_acc"]
        noise = 3 * math.sqrt(2 * before * (100 - before) / held_out)  # of a difference of two shares, in points
        if now < before / 2 and before - now > noise and row["val_fgsm_acc"] >= best["val_fgsm_acc"] - noise:
            return number
    return None


def _robust_to_one_step_only(rows: list[dict[str, float]], held_out: int) -> int | None:
    """The first epoch, counted from 0, at which one step overstates robustness, even if there never was any.

    There one step leaves more than half of the clean accuracy, and more than four times what the selection attack
    leaves, beyond three standard deviations. Adversarial training on several steps has the two 3 to 10 points apart,
    and natural training loses most of its accuracy to one step.
    """
    for number, row in enumerate(rows):
        fgsm = row["val_fgsm_acc"]
        excess = fgsm - max(row["val_clean_acc"] / 2, 4 * row["val_robust_acc"])
        if excess > 3 * math.sqrt(fgsm * (100 - fgsm) / held_out):
            return number
    return None
