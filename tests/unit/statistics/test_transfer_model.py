"""Floors and rates of transfer curves, from planted times."""

import numpy as np
import pytest

from ceilings.statistics.transfer_model import fitted, time_at

SIZES = [4**power for power in range(1, 15)]


def planted(floor_us, gb_per_s, noise=0.0):
    random = np.random.default_rng(1)
    return [(floor_us + size / gb_per_s / 1e3) * (1 + noise * random.standard_normal()) for size in SIZES]


@pytest.mark.parametrize(("floor", "rate"), [(7.5, 54.0), (2.0, 6.5), (900.0, 11.0)])
def test_a_floor_and_a_rate_are_read_back(floor, rate):
    fit = fitted(SIZES, planted(floor, rate))
    assert fit.floor_us == pytest.approx(floor) and fit.rate_gb_per_s == pytest.approx(rate)
    assert fit.good and abs(fit.worst) < 1e-9


def test_noise_moves_them_by_little():
    fit = fitted(SIZES, planted(7.5, 54.0, noise=0.03))
    assert fit.floor_us == pytest.approx(7.5, rel=0.05) and fit.rate_gb_per_s == pytest.approx(54, rel=0.05)
    assert fit.good and 0.01 < abs(fit.worst) < 0.2


def test_a_curve_with_a_step_is_called_a_bad_fit_at_the_step():
    times = planted(5.0, 20.0)
    step = SIZES.index(64 << 10)
    times[step] *= 3
    fit = fitted(SIZES, times)
    assert not fit.good and fit.worst_bytes == 64 << 10 and fit.worst > 0.5


def test_times_that_do_not_rise_have_no_rate():
    fit = fitted([4, 16, 64], [3.0, 3.0, 2.9])
    assert fit.rate_gb_per_s is None and fit.floor_us == pytest.approx(2.97, abs=0.05)


def test_no_floor_is_below_zero():
    fit = fitted([1000, 4000, 16000], [1.0, 5.0, 25.0])
    assert fit.floor_us == 0 and fit.rate_gb_per_s == pytest.approx(0.75, abs=0.3)


def test_times_between_sizes_lie_on_the_line_between_them():
    sizes, times = [100, 200, 400], [1.0, 3.0, 5.0]
    assert time_at(150, sizes, times) == 2.0 and time_at(400, sizes, times) == 5.0
    assert time_at(4, sizes, times) == 1.0  # never less than the smallest transfer takes
    assert time_at(600, sizes, times) == pytest.approx(7.0)  # goes on as between the last two
    assert time_at(600, sizes, [1.0, 3.0, 2.0]) == 2.0
