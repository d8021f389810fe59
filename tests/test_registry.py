"""Tables by name: what is missing is refused with the nearest name."""

import pytest

import homojax as hj
from homojax.registry import nearest


@pytest.mark.parametrize(
    ("table", "wrong", "meant"),
    [
        (hj.CLAIMS, "hilbrt", "hilbert"),
        (hj.PRESETS, "mhc-papr", "mhc-paper"),
        (hj.PARAMETRIZATIONS, "kroneker", "kronecker"),
    ],
)
def test_a_missing_name_is_refused_with_the_nearest(table, wrong, meant):
    with pytest.raises(KeyError) as caught:
        table[wrong]
    assert caught.value.args[0].endswith(f'"{wrong}": did you mean "{meant}"?')
    assert table[meant].name == meant
    assert wrong not in table and table.get(wrong) is None  # asking makes no entry


def test_a_word_that_is_near_none_is_told_all():
    assert nearest("zzz", ["b", "a"]) == "there are: a, b."
    assert nearest("zzz", []) == "there are none."
    assert nearest("zzz", map(str, range(30))).endswith(" and 6 more.")
