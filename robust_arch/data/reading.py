"""How files became the images of a set, as counts by reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_SHOWN = 10  # reasons in a line; there are thousands where the suffix is a number


@dataclass(frozen=True)
class Reading:
    """What a reader did with the files of a set; nothing is dropped, added or altered without a count here.

    Attributes:
        read: number of images.
        noted: images in an unusual place or with an unusual name, by what is unusual.
        skipped: files that were not read, by reason.
        converted: images whose pixels are not those of the file, by the name of the conversion.
    """

    read: int
    noted: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        noted = f" ({_counts(self.noted)})" if self.noted else ""
        return f"{self.read:,} read{noted}; skipped: {_counts(self.skipped)}; converted: {_counts(self.converted)}"


def _counts(counts: Mapping[str, int]) -> str:
    """The most frequent reasons first, the rest as a sum."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {reason}" for reason, count in ordered[:_SHOWN]]
    if rest := ordered[_SHOWN:]:
        shown.append(f"{sum(count for _, count in rest):,} for {len(rest):,} other reasons")
    return ", ".join(shown) or "none"
