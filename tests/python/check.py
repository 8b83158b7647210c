"""What the scripts that drive a server assert with."""

import numpy as np


def same(found, expected, what):
    """Fails where two things differ."""
    assert found == expected, f"{what}:\n  found    {found!r}\n  expected {expected!r}"


def same_array(found, expected, what):
    """Fails where two arrays differ in type, shape or a bit; NaN equals NaN."""
    same(found.dtype, expected.dtype, f"{what}, type")
    same(found.shape, expected.shape, f"{what}, shape")
    gaps = np.isnan(expected)
    bits = f"u{expected.dtype.itemsize}"
    equal = np.where(gaps, np.isnan(found), found.view(bits) == expected.view(bits))
    if not equal.all():
        place = tuple(int(index) for index in np.argwhere(~equal)[0])
        raise AssertionError(
            f"{what}: {(~equal).sum()} of {equal.size} samples differ, "
            f"first at {place}: found {found[place]}, expected {expected[place]}"
        )


def by_rate(names, rates):
    """The names of each rate, as lists of names that can be read together."""
    groups = {}
    for name, rate in zip(names, rates):
        groups.setdefault(rate, []).append(name)
    return groups
