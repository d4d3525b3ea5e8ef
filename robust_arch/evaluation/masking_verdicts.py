"""Verdicts of the gradient-masking checks: which shares are too large for a network whose gradients are honest.

A share exceeds its limit if the lower end of its 95% Wilson interval does, so that chance flags nothing.
"""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

from robust_arch.common.statistics import recorded_share

Share = Mapping[str, Any]
"""Count, n, percent and interval, as of `recorded_share`."""

FEW, MANY = 20, 100  # steps; pgd20 must have converged
LOSS_STEPS = 40

MAX_SURVIVING = 0.02  # at the last radius every image can be reached: a survivor was missed and is not robust
MAX_RISE = 0.02  # a ball contains every smaller one: an accuracy that rises with the radius is a failure of the attack
MAX_WORSE = 0.01  # many steps reach what one step does; they fail where the loss is jagged or the gradient is wrong
MAX_UNCONVERGED = 0.03  # on honest networks pgd20 has all but converged: less than a point is left
MAX_BLACK_BOX = 0.02  # one search without gradients is weaker than many attacks with honest gradients
# On nine diagnoses of honest networks (digits, 120 images; two naturally and two adversarially trained, linf 0.1 to 0.3
# and l2 0.5) one loss missed at most 6 of 120 images, and surrogates broke 1 of 408 survivors.
MAX_MISSED = 0.10
MAX_TRANSFER = 0.02
# Where few images survive, a share of all images hides what falls: these limits are shares of the survivors, and
# apply from MIN_FALLEN images. 6 of 11 exceed a quarter by their interval, 2 of 2 do not.
MAX_OF_SURVIVORS = 0.25
MAX_TRANSFER_OF_SURVIVORS = 0.05
MIN_FALLEN = 3
MIN_WINS = 0.75  # against random directions a gradient without information wins on half of the images
MAX_NO_GRADIENT = 0.01  # these images never move in a gradient attack, whatever it reports
MAX_RANDOM = 0.0  # the accuracy of a network that draws random numbers needs attacks of its own

_NO_SURVIVORS = True, "No image survives the white-box attacks: nothing to judge."


def verdicts(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One verdict per check, each with name, ok and text. found: what each check measured, by its name."""
    judged = {name: judge(found[name]) for name, judge in _JUDGES.items()}
    return [{"name": name, "ok": ok, "text": text} for name, (ok, text) in judged.items()]


def _exceeds(share: Share, limit: float) -> bool:
    return bool(share["interval"][0] > 100 * limit)


def _many(among: Share, limit: float = MAX_OF_SURVIVORS) -> bool:
    """Whether at least `MIN_FALLEN` survivors fall, and significantly more than the limit."""
    return among["count"] >= MIN_FALLEN and _exceeds(among, limit)


def _excess(more: Share, fewer: Share) -> dict[str, Any]:
    """The share by which the first exceeds the second, 0 where it does not."""
    return recorded_share(max(more["count"] - fewer["count"], 0), more["n"])


def _text(share: Share) -> str:
    low, high = share["interval"]
    return f"{share['count']} of {share['n']} ({share['percent']:.1f}% [{low:.1f}, {high:.1f}])"


def _of_survivors(among: Share, limit: float) -> str:
    return f"{among['count']} of the {among['n']} survivors, allowed {limit:.0%} or {MIN_FALLEN - 1} images"


def _judge_eps(found: Mapping[str, Any]) -> tuple[bool, str]:
    rows = found["points"]
    rise = max((_excess(later, row) for row, later in combinations(rows, 2)), key=lambda share: int(share["count"]))
    ok = not _exceeds(rise, MAX_RISE)
    if found["classes"] > 1:
        ok = ok and not _exceeds(rows[-1], MAX_SURVIVING)
        last = (
            f"At radius {rows[-1]['eps']}, where any image can be turned into any other, {_text(rows[-1])} survive, "
            f"allowed {MAX_SURVIVING:.0%}"
        )
    else:  # such a network is useless and masks nothing: no image is known to break another
        last = "The network gives all images the same class, so that no image breaks another"
    return ok, f"{last}; the largest rise of accuracy with the radius is {_text(rise)}, allowed {MAX_RISE:.0%}."


def _judge_steps(rows: list[dict[str, Any]]) -> tuple[bool, str]:
    at = {row["steps"]: row for row in rows}
    worse, unconverged = _excess(at[MANY], at[1]), _excess(at[FEW], at[MANY])
    late = recorded_share(unconverged["count"], at[FEW]["count"])
    return (
        not _exceeds(worse, MAX_WORSE) and not _exceeds(unconverged, MAX_UNCONVERGED) and not _many(late),
        f"{_text(at[1])} survive one step and {_text(at[MANY])} survive {MANY}, which break {_text(worse)} fewer "
        f"than one step, allowed {MAX_WORSE:.0%}, and {_text(unconverged)} more than {FEW} steps, allowed "
        f"{MAX_UNCONVERGED:.0%}: {_of_survivors(late, MAX_OF_SURVIVORS)}.",
    )


def _judge_losses(rows: list[dict[str, Any]]) -> tuple[bool, str]:
    # no limit as a share of the survivors: where few survive, an honest network's losses miss different images
    parts = [
        f"{_text(row['standing'])} survive {row['loss'].replace('_', ' ')}, and the other losses break "
        f"{_text(row['missed'])} of all"
        for row in rows
    ]
    ok = not any(_exceeds(row["missed"], MAX_MISSED) for row in rows)
    return ok, f"{LOSS_STEPS} steps on each loss by itself: {'; '.join(parts)}; allowed {MAX_MISSED:.0%}."


def _judge_square(found: Mapping[str, Any]) -> tuple[bool, str]:
    survivors = found["white_box"]["count"]
    if not survivors:
        return _NO_SURVIVORS
    among = recorded_share(found["broken"]["count"], survivors)
    return (
        not _many(among) and not _exceeds(found["broken"], MAX_BLACK_BOX),
        f"The Square attack of {found['queries']} queries breaks images that survive every white-box attack: "
        f"{_text(found['broken'])} of all, allowed {MAX_BLACK_BOX:.0%}, and {_of_survivors(among, MAX_OF_SURVIVORS)}.",
    )


def _judge_transfer(rows: list[dict[str, Any]]) -> tuple[bool, str]:
    if not rows:
        return _NO_SURVIVORS
    limit = MAX_TRANSFER_OF_SURVIVORS
    among = [recorded_share(row["broken"]["count"], row["white_box"]["count"]) for row in rows]
    parts = [
        f"{row['surrogate']} {_text(row['broken'])} of all, {_of_survivors(share, limit)}"
        for row, share in zip(rows, among, strict=True)
    ]
    ok = not any(_exceeds(row["broken"], MAX_TRANSFER) for row in rows) and not any(_many(a, limit) for a in among)
    return ok, (
        "Images made on a surrogate break images that survive every white-box attack, by surrogate: "
        f"{'; '.join(parts)}; allowed {MAX_TRANSFER:.0%} of all."
    )


def _judge_directions(found: Mapping[str, Any]) -> tuple[bool, str]:
    wins = [found[name]["wins"] for name in ("cross_entropy", "margin")]
    losses = [recorded_share(share["n"] - share["count"], share["n"]) for share in wins]
    missing, among = found["no_gradient"], found["no_gradient_standing"]
    absent = "Gradients are not available. " if missing["count"] == missing["n"] else ""
    return (
        not any(_exceeds(share, 1 - MIN_WINS) for share in losses)
        and not _exceeds(missing, MAX_NO_GRADIENT)
        and not _many(among, MAX_NO_GRADIENT),
        f"{absent}At distance eps the gradient's direction raises the loss more than random directions do on "
        f"{_text(wins[0])} for cross-entropy and {_text(wins[1])} for the margin, required {MIN_WINS:.0%}; the "
        f"gradient of cross-entropy is zero or not finite on {_text(missing)}, allowed {MAX_NO_GRADIENT:.0%}: "
        f"{_of_survivors(among, MAX_NO_GRADIENT)}.",
    )


def _judge_repeat(found: Mapping[str, Any]) -> tuple[bool, str]:
    changed = found["changed"]
    text = f"A second forward pass changes the logits of {_text(changed)}, allowed {MAX_RANDOM:.0%}."
    return not _exceeds(changed, MAX_RANDOM), text


_JUDGES: dict[str, Callable[[Any], tuple[bool, str]]] = {
    "eps": _judge_eps,
    "steps": _judge_steps,
    "losses": _judge_losses,
    "square": _judge_square,
    "transfer": _judge_transfer,
    "directions": _judge_directions,
    "repeat": _judge_repeat,
}
