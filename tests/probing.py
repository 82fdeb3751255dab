"""What the tests of all lessons' probes share: a probe on a seed that everybody knows, beside an oracle."""

from pathlib import Path

import pytest

from tinytorch_course.grading import probes


def each_probe(file):
    """Parametrizes a test over the probes beside its file, each one marked with the exercise that it gates."""
    found = probes.load(Path(file).with_name(probes.FILE))
    return pytest.mark.parametrize(
        "probe", [pytest.param(p, id=p.name, marks=pytest.mark.exercise(p.exercise)) for p in found]
    )


def assert_agrees(probe, tt, oracle, seed):
    """The probe's arrays are those of `oracle(**inputs)`, worked out without tinytorch."""
    expected = {f"{probe.name}.{name}": probes.np.asarray(value) for name, value in oracle(**probe.drawn(seed)).items()}
    got = {f"{probe.name}.{name}": array for name, array in probe(tt, seed).items()}
    assert probes.differences(expected, got) == []
    assert got.keys() == expected.keys()
