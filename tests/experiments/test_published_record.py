"""The tables in experiments/published are those of its recorded numbers."""

import re
import shutil

from experiments.published.collect import FOLDER, describe


def test_the_page_says_what_is_recorded(tmp_path):
    folder = tmp_path / "published"
    shutil.copytree(FOLDER, folder)
    page = (folder / "README.md").read_text()
    emptied, count = re.subn(r"(<!-- begin \w+ -->\n).*?(<!-- end \w+ -->)", r"\1\2", page, flags=re.DOTALL)
    assert count == 6
    (folder / "README.md").write_text(emptied)
    describe(folder)
    assert (folder / "README.md").read_text() == page
    # the numbers that the text around the tables names
    assert "| nas_robbench_201 | gaussian_process | 21 [19, 23] |" in page
    assert "| trnas_epochs | 1 | halving | 885 [885, 885] |" in page
