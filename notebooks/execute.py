"""Execute notebooks from top to bottom and keep what they show: `python notebooks/execute.py` does all, in place."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(path: Path) -> NotebookNode:
    """The notebook with fresh outputs; of its metadata only what is the same on every machine."""
    notebook = nbformat.read(path, as_version=4)
    # no record of times, whole streams: the same notebook must give the same file
    NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    notebook.metadata = NotebookNode(_METADATA)
    return notebook


def main() -> None:
    """Execute every notebook of this folder."""
    for path in sorted(HERE.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(f"executed: {path.name}")


if __name__ == "__main__":
    main()
