"""What a reader must know of a finished training, found in its held-out accuracies."""

import math


def training_flags(rows: list[dict[str, float]], num_classes: int, held_out: int) -> list[str]:
    """What a reader must know of a finished training; logged, and shown with its results.

    rows: of metrics.csv. held_out: number of images that the held-out accuracies stand on.
    """
    chance = 100 / num_classes
    # three standard deviations of a guess: a run that has learnt anything is far above
    noise = 300 * math.sqrt((1 / num_classes) * (1 - 1 / num_classes) / held_out)
    clean = rows[-1]["val_clean_acc"]
    flags = []
    if clean <= chance + noise:
        flags.append(
            f"collapsed: held-out clean accuracy {clean:.1f}% (n={held_out}) is at chance level, {chance:.1f}%"
        )
    if (epoch := catastrophic_overfitting(rows, held_out)) is not None:
        then, best = rows[epoch], max(rows[: epoch + 1], key=lambda row: row["val_robust_acc"])
        flags.append(
            f"catastrophic overfitting: at epoch {epoch + 1} held-out accuracy under the selection attack is "
            f"{then['val_robust_acc']:.1f}% after {best['val_robust_acc']:.1f}% at epoch {int(best['epoch']) + 1}, "
            f"under one step {then['val_fgsm_acc']:.1f}% after {best['val_fgsm_acc']:.1f}% (n={held_out})"
        )
    elif (epoch := robust_to_one_step_only(rows, held_out)) is not None:
        then = rows[epoch]
        flags.append(
            f"one step overstates robustness: at epoch {epoch + 1} held-out accuracy is "
            f"{then['val_fgsm_acc']:.1f}% under one step and {then['val_robust_acc']:.1f}% under the selection attack "
            f"(n={held_out})"
        )
    return flags


def catastrophic_overfitting(rows: list[dict[str, float]], held_out: int) -> int | None:
    """The first epoch, counted from 0, at which single-step training has lost its robustness (Wong et al. 2020).

    There accuracy under the selection attack is below half of its best so far, and further below than chance explains,
    while accuracy under one step has not fallen: the network has learned to fool the single step.
    """
    if not all("val_fgsm_acc" in row for row in rows):  # begun by a version that did not look
        return None
    for number, row in enumerate(rows):
        best = max(rows[: number + 1], key=lambda earlier: earlier["val_robust_acc"])
        before, now = best["val_robust_acc"], row["val_robust_acc"]
        noise = 3 * math.sqrt(2 * before * (100 - before) / held_out)  # of a difference of two shares, in points
        if now < before / 2 and before - now > noise and row["val_fgsm_acc"] >= best["val_fgsm_acc"] - noise:
            return number
    return None


def robust_to_one_step_only(rows: list[dict[str, float]], held_out: int) -> int | None:
    """The first epoch, counted from 0, at which one step overstates robustness, also where there never was any.

    There one step leaves more than half of the clean accuracy, and more than four times what the selection attack
    leaves, beyond three standard deviations. Adversarial training on several steps has the two 3 to 10 points apart,
    and natural training loses most of its accuracy to one step.
    """
    if not all("val_fgsm_acc" in row for row in rows):
        return None
    for number, row in enumerate(rows):
        fgsm = row["val_fgsm_acc"]
        excess = fgsm - max(row["val_clean_acc"] / 2, 4 * row["val_robust_acc"])
        if excess > 3 * math.sqrt(fgsm * (100 - fgsm) / held_out):
            return number
    return None
