"""The speed of recorded trainings, by hand."""

import pytest

from robust_arch.study.speed import Speed


def test_the_speed_is_the_median_per_mac_and_epoch():
    # 0.5, 0.02 and 0.03 seconds per MAC and epoch
    speed = Speed.of([(50.0, 10, 10), (40.0, 100, 20), (9.0, 300, 1)])
    assert speed == Speed(rate=pytest.approx(0.03), trainings=3)
    assert speed.seconds(macs=200, epochs=5) == pytest.approx(30.0)


def test_one_training_tells_its_own_time():
    assert Speed.of([(12.5, 7, 3)]).seconds(7, 3) == pytest.approx(12.5)


@pytest.mark.parametrize("recorded", [[], [(5.0, 0, 3), (5.0, 3, 0)]])
def test_without_work_there_is_no_speed(recorded):
    assert Speed.of(recorded) is None
