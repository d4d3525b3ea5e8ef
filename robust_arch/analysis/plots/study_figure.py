"""A figure of a study with the words that belong to it, and the files that it is written to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from robust_arch.analysis.plots.style import png_bytes, save, svg_text
from robust_arch.common.files import write_text


@dataclass(frozen=True)
class StudyFigure:
    """A figure and its words, which are plain text.

    Attributes:
        name: unique in its study, the stem of its files, like `stage_width`.
        title: one line without a full stop.
        caption: what is drawn; data set, test images, seeds and the kind of interval; what stands out only by chance.
        figure: at its printed size.
    """

    name: str
    title: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """The figure as an <svg> element to embed in a page.

        Its background is transparent, its letters are paths, and what is black on paper has the colour `currentColor`,
        which is that of the text around it; all other colours are legible on white and on dark grey.
        """
        return svg_text(self.figure, self.name, self.title)

    def png(self, dpi: int = 200) -> bytes:
        """The figure on white, with `dpi` dots per inch."""
        return png_bytes(self.figure, dpi)

    def save(self, folder: Path) -> list[Path]:
        """Write it as PDF, PNG and SVG, and its title and caption as text, into `folder`; the same bytes each time."""
        texts = {".svg": self.svg(), ".txt": f"{self.title}. {self.caption}\n"}
        paths = [folder / f"{self.name}{ending}" for ending in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            write_text(path, text)
        return [*save(self.figure, folder, self.name), *paths]
