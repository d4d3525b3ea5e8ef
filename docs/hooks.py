"""What the site adds to the pages in docs/.

The configuration, linked files of the repository, formulas as MathML, and a search that works from the disk.
"""

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = "configuration.md"
_LINK = re.compile(r"(?<=\]\()(?P<target>[^()#\s:]+)(?P<anchor>#[^()\s]*)?(?=\))")
_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.+?)\\[)\]]</(?P=tag)>', flags=re.DOTALL
)  # as pymdownx.arithmatex marks them
# Of these TeX neither stretches nor spaces the first three, and does not stretch the angles; MathML does unless told.
_UNSPACED = re.compile(r"<mo[^>]*>(?=(?:&#x02016;|&#x0007C;|&#x0002F;)</mo>)")
_ANGLE = re.compile(r"<mo>(?=&#x027E[89];</mo>)")
_INTRODUCTION = """# Configuration

Every choice is a file in `conf/`, and every key in it can be set on the command line: `group=choice` selects another
file, `group.key=value` sets a key. Below are the files themselves, with their comments. `--config-dir <folder>` adds
your own folder with the same layout.
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out the theme's 404 page: it needs a server."""
    config.theme.static_templates.discard("404.html")
    return config


def on_pre_build(config: MkDocsConfig) -> None:
    """Leave out the plugin's own script: from the disk, browsers run no worker and read no JSON."""
    config.extra_javascript.remove("search/main.js")


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Load the search on its page."""
    if template_name != "search.html":
        return output
    scripts = "".join(f'<script src="{name}"></script>' for name in ("search/lunr.js", "search/index.js", "search.js"))
    return output.replace("</body>", f"{scripts}</body>")


@event_priority(-100)  # after the plugin
def on_post_build(config: MkDocsConfig) -> None:
    """Turn the plugin's index into a script."""
    folder = Path(config.site_dir) / "search"
    index = folder / "search_index.json"
    (folder / "index.js").write_text(f"const searchIndex = {index.read_text(encoding='utf-8')};\n", encoding="utf-8")
    for unused in (index, folder / "main.js", folder / "worker.js"):
        unused.unlink()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the configuration, and what pages link to outside docs/, page by page."""
    files.append(File.generated(config, CONFIGURATION, content=configuration_page()))
    pending = [file for file in files if file.is_documentation_page()]
    while pending:
        page = pending.pop()
        for target in _linked(page.content_string, _source(page)):
            uri = _uri(target)
            if files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(target)))
                pending += [files.src_uris[uri]] if target.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Point links to files of the repository to where the site has them."""
    source = _source(page.file)

    def moved(match: re.Match[str]) -> str:
        target = _resolved(match["target"], source)
        if target is None:
            return match[0]
        return posixpath.relpath(_uri(target), posixpath.dirname(page.file.src_uri)) + (match["anchor"] or "")

    return _LINK.sub(moved, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Show formulas as MathML, which browsers draw by themselves."""
    return _FORMULA.sub(_mathml, content)


def configuration_page() -> str:
    """Every YAML file of conf/ as Markdown: the two commands first, then group by group."""
    conf = ROOT / "conf"
    parts = [_INTRODUCTION]
    for command in ("train", "evaluate"):
        parts.append(f"## {command}\n\nKeys of `python -m robust_arch.{command}`.\n\n{_listing(conf / command)}")
    for group in sorted(path for path in conf.rglob("*") if path.is_dir()):
        name = group.relative_to(conf).as_posix()
        parts.append(f"## {name}")
        parts += [f"### {name}={file.stem}\n\n{_listing(file)}" for file in sorted(group.glob("*.yaml"))]
    return "\n\n".join(parts)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match["tag"] == "div" else "inline"
    formula = convert(html.unescape(match["latex"]), display=display)
    formula = _UNSPACED.sub('<mo stretchy="false" lspace="0" rspace="0">', formula)
    return _ANGLE.sub('<mo stretchy="false">', formula)


def _listing(file: Path) -> str:
    return f"```yaml\n{file.with_suffix('.yaml').read_text(encoding='utf-8').strip()}\n```"


def _linked(markdown: str, source: Path) -> Iterator[Path]:
    for match in _LINK.finditer(markdown):
        target = _resolved(match["target"], source)
        if target is not None:
            yield target


def _resolved(target: str, source: Path) -> Path | None:
    """The file of the repository that a link of `source` names, of a folder its README; None for other links.

    The folder conf/ is on the site a page, that of the configuration.
    """
    path = (source.parent / target).resolve()
    if path == ROOT / "conf":
        return ROOT / "docs" / CONFIGURATION
    path = path / "README.md" if path.is_dir() else path
    return path if path.is_relative_to(ROOT) and path.is_file() else None


def _source(file: File) -> Path:
    """Where a page's text stands in the repository."""
    return Path(file.abs_src_path) if file.abs_src_path else ROOT / "docs" / file.src_uri


def _uri(target: Path) -> str:
    """Where a file of the repository stands among the site's sources."""
    if target.is_relative_to(ROOT / "docs"):
        return target.relative_to(ROOT / "docs").as_posix()
    return "repository/" + target.relative_to(ROOT).as_posix()
