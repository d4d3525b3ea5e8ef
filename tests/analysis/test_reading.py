"""Results are the same from a study's records and from its results.csv; shares come from the architecture alone."""

from pathlib import Path

import pandas as pd
import pytest

from robust_arch.analysis.reading import read_results, spec_of, stage_shares
from robust_arch.architectures import PRESETS, ArchSpec, arch_name, named_spec
from robust_arch.errors import InputError

DEMO = Path(__file__).parents[2] / "experiments" / "demo"
SPECS = [
    *PRESETS.values(),
    ArchSpec("wide_resnet", (2, 1, 3), (16, 32, 64), stem_width=24),
    ArchSpec("wide_resnet", (2, 1, 3), (16, 32, 64), activation="silu"),
    ArchSpec("wide_resnet", (2, 2, 1), (16, 32, 32), stem_width=8, activation="gelu", dropout=0.3),
    ArchSpec("wide_resnet", (1, 1, 1), (8, 16, 32), dropout=1e-05),
    ArchSpec("resnet", (1, 1, 1, 1), (8, 16, 32, 64), stem_width=8),
]


@pytest.mark.parametrize("spec", SPECS, ids=arch_name)
def test_a_name_describes_the_whole_architecture(spec: ArchSpec) -> None:
    assert named_spec(arch_name(spec)) == spec


@pytest.mark.parametrize("name", ["", "wrn", "wide_resnet-d2-2-w16", "wide_resnet-d2-2-w16-0", "nothing-d1-w1"])
def test_a_name_of_no_architecture_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        named_spec(name)


def test_a_folder_and_its_file_are_the_same_results() -> None:
    pd.testing.assert_frame_equal(read_results(DEMO), read_results(DEMO / "results.csv"))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="run_id"):
        read_results(tmp_path)


def test_shares_are_those_of_a_hand_count() -> None:
    # stem 16; blocks 16->4, 4->8, 8->16 with one block per stage: 2 c_in + 9 c_in c + 2 c + 9 c^2 + c_in c
    parts = [2 * i + 9 * i * c + 2 * c + 9 * c * c + i * c for i, c in ((16, 4), (4, 8), (8, 16))]
    row = {"arch": "mine", "family": "wide_resnet", "depths": "1-1-1", "widths": "4-8-16"}
    assert spec_of(row) == ArchSpec("wide_resnet", (1, 1, 1), (4, 8, 16))
    assert stage_shares(row) == pytest.approx([part / sum(parts) for part in parts])
