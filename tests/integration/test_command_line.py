"""The words of a command line may come in any order."""

import pytest

from robust_arch.configuration.commands import overrides_last


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("seed=1 -m study=demo", "-m seed=1 study=demo"),
        ("-m seed=1 --config-dir mine study=own", "-m --config-dir mine seed=1 study=own"),
        ("seed=1 --config-dir a=b ~logger", "--config-dir a=b seed=1 ~logger"),
        ("+threat.eps=-1 --config-dir=a=b", "--config-dir=a=b +threat.eps=-1"),
        ("--help", "--help"),
    ],
)
def test_overrides_come_after_options(given, expected):
    assert overrides_last(given.split()) == expected.split()
