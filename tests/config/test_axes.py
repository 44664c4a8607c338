"""How a grid is written, and the names it gives."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.config.checks import checked
from mopo_cli.config.fields import NAME, mark, parse_axes, word
from mopo_cli.config.schema import Ablate
from mopo_cli.errors import SettingsError

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("given_", "axes"),
    [
        (["beta=0.5,1", "real-ratio= 0.5 , 0.8"], {"beta": ["0.5", "1"], "real_ratio": ["0.5", "0.8"]}),
        ("critic-lr=1e-4", {"critic_lr": ["1e-4"]}),
        ({"beta": [0.5, 1], "real-ratio": 0.5}, {"beta": [0.5, 1], "real_ratio": [0.5]}),
        ({"hidden": "16,32"}, {"hidden": ["16", "32"]}),
        ([], {}),
        (3, 3),
    ],
)  # fmt: skip
def test_flags_and_yaml_say_the_same(given_: Any, axes: Any) -> None:
    assert parse_axes(given_) == axes


@pytest.mark.parametrize("text", ["beta", "=1", "beta=", "beta= ", " =1", "0.5,1"])
def test_what_is_no_axis(text: str) -> None:
    with pytest.raises(ValueError, match="must be NAME=V1,V2"):
        parse_axes([text])


def test_an_axis_is_named_once() -> None:
    with pytest.raises(ValueError, match="real-ratio twice"):
        parse_axes(["real-ratio=0.5", "real_ratio=0.8"])


@given(finite)
def test_a_number_has_one_word_however_it_is_written_and_another_number_another(value: float) -> None:
    assert float(word(value)) == value
    assert word(value) == word(repr(value)) == word(f"{value:.17e}")
    assert re.fullmatch(r"[0-9.e+-]+", word(value))


@given(st.text(min_size=1))
def test_a_word_fits_into_a_name(text: str) -> None:
    assert re.fullmatch(NAME, f"a{mark('rollouts', [text])}")


def test_marks() -> None:
    assert mark("real_ratio", ["0.50", 0.8]) == "_real-ratio0.5+0.8"
    assert mark("actor_schedule", ["cosine"]) == "_actor-schedule-cosine"
    assert mark("target_entropy", [None, -3.0]) == "_target-entropy-none+-3"
    assert mark("rollouts", ["runs/a/b.h5"]) == "_rollouts-runs-a-b.h5"


def test_tables_are_named_after_their_axes() -> None:
    axes = {"grid": ["beta=0.50,1e0,5", "real-ratio=0.5,0.8"]}
    end = "_beta0.5+1+5_real-ratio0.5+0.8"
    assert Ablate(method="combo,mopo", **axes).table_name() == f"combo+mopo{end}"  # type: ignore[arg-type]
    assert Ablate(**axes).table_name() == f"max-var+none_lam1_h5{end}"  # type: ignore[arg-type]
    assert Ablate(name="mine", **axes).table_name() == "mine"  # type: ignore[arg-type]


def test_a_grid_that_is_none_is_refused_in_a_sentence() -> None:
    with pytest.raises(SettingsError, match=r"mine.yaml: ablate: grid must"):
        checked({"ablate": {"grid": 3}}, "mine.yaml")
