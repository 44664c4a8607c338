"""What episodes in three places say of MOPO's bound."""

import json

import numpy as np
import pytest

from mopo_cli.evaluation.bound import summary
from mopo_cli.evaluation.play import EpisodeResults
from mopo_cli.store.atomic import plain


def played(*discounted: float) -> EpisodeResults:
    values = np.array(discounted)
    return EpisodeResults(2 * values, np.arange(len(values)) + 1, values)


def places(real: EpisodeResults, penalised: EpisodeResults) -> dict[str, EpisodeResults]:
    return {"real": real, "model": played(9.0), "penalised": penalised}


def test_means_standard_errors_and_the_gap_by_hand() -> None:
    """Of 1, 2, 6: mean 3, sample variance 7. Of 4, 8: mean 6, variance 8."""
    result = summary({"0": places(played(4.0, 8.0), played(1.0, 2.0, 6.0))})
    seed = result["seeds"]["0"]
    assert seed["real"]["discounted"] == pytest.approx({"mean": 6.0, "standard_error": (8 / 2) ** 0.5})
    assert seed["penalised"]["discounted"] == pytest.approx({"mean": 3.0, "standard_error": (7 / 3) ** 0.5})
    assert seed["penalised"]["undiscounted"] == pytest.approx({"mean": 6.0, "standard_error": 2 * (7 / 3) ** 0.5})
    assert (seed["penalised"]["length"], seed["penalised"]["episodes"]) == (2.0, 3)
    assert seed["gap"] == pytest.approx({"mean": 3.0, "standard_error": (4 + 7 / 3) ** 0.5})
    assert (seed["held"], result["held"], result["compared"]) == (True, 1, 1)


@pytest.mark.parametrize(("real", "penalised", "held"), [(2.0, 1.0, True), (1.0, 1.0, True), (1.0, 1.5, False)])
def test_it_holds_unless_the_penalised_model_promises_more(real: float, penalised: float, held: bool) -> None:
    seed = summary({"0": places(played(real, real), played(penalised, penalised))})["seeds"]["0"]
    assert seed["held"] is held


def test_seeds_are_counted_and_their_means_summed_up() -> None:
    result = summary(
        {
            "0": places(played(4.0), played(1.0)),
            "5": places(played(2.0), played(3.0)),
            "7": places(played(np.nan), played(3.0)),
        }
    )
    assert [result["seeds"][seed]["held"] for seed in ("0", "5", "7")] == [True, False, None]
    assert (result["held"], result["compared"]) == (1, 2)
    assert result["over_seeds"]["penalised"]["discounted"] == pytest.approx({"mean": 7 / 3, "std": (8 / 9) ** 0.5})


def test_without_the_real_return_nothing_is_compared_and_one_episode_has_no_error() -> None:
    result = summary({"0": {"model": played(2.0), "penalised": played(1.0)}})
    assert (result["held"], result["compared"], set(result["over_seeds"])) == (None, 0, {"model", "penalised"})
    seed = json.loads(json.dumps(plain(result)))["seeds"]["0"]
    assert seed["gap"] is seed["held"] is None
    assert seed["model"]["discounted"] == {"mean": 2.0, "standard_error": None}
