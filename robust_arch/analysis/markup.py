"""HTML in which text is escaped unless it is already markup: forgetting to escape is not possible."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, *content: str, **attributes: str) -> Markup:
    """`<name attributes>content</name>`, plain str escaped; `class_` is written class and `aria_label` aria-label."""
    return Markup(f"<{name}{_attributes(attributes)}>{joined(*content)}</{name}>")


def joined(*content: str) -> Markup:
    """The parts one after another, plain str escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in content))


def simple_table(
    label: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, messages: Collection[int] = ()
) -> Markup:
    """A table in a box that scrolls by itself; the first cell of a row heads it, the columns `messages` may wrap."""
    headings = element("tr", *(element("th", name, scope="col") for name in head))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(
                element("td", cell, **({"class_": "message"} if position in messages else {}))
                for position, cell in enumerate(row[1:], start=1)
            ),
        )
        for row in rows
    ]
    table = element("table", element("thead", headings), element("tbody", *body))
    return element("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def folded(summary: str, *content: str) -> Markup:
    """What is shown when its summary is clicked."""
    return element("details", element("summary", summary), *content)


def picture(png: bytes, alt: str) -> Markup:
    """An image that travels inside the page."""
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return Markup(f"<img{_attributes({'src': source, 'alt': alt})}>")


def _attributes(attributes: dict[str, str]) -> str:
    return "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
