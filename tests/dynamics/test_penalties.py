"""Every uncertainty re-derived in numpy, and what each of them must and must not see."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.dynamics import penalties
from mopo_cli.dynamics.penalties import PENALTIES, UNCERTAINTIES, PenaltyForm, penalty_weights
from mopo_cli.engine.streams import stream

Array = NDArray[np.float64]
MOPO = ("max-var", "avg-var", "ens")  # the columns of what the tests below measure
uncertainties = partial(penalties.uncertainties, names=MOPO)


def norm(x: Array) -> float:
    return float(np.sqrt(sum(number**2 for number in x)))


# A new uncertainty is tested by its formula here: of the networks' next states [K, obs_dim] and stds [K, obs_dim + 1].
BY_HAND: dict[str, Callable[[Array, Array], float]] = {
    "max-var": lambda states, stds: max(map(norm, stds)),
    "avg-var": lambda states, stds: float(np.mean([norm(std) for std in stds])),
    "ens": lambda states, stds: max(norm(state - states.mean(axis=0)) for state in states),
    "discrepancy": lambda states, stds: max(norm(a - b) for a in states for b in states),
}


def by_hand(name: str, mean: Tensor, std: Tensor) -> list[float]:
    means, stds = mean.double().numpy(), std.double().numpy()
    return [BY_HAND[name](means[:, b, :-1], stds[:, b]) for b in range(means.shape[1])]


def prediction(networks: int = 7, batch: int = 13, dims: int = 5) -> tuple[Tensor, Tensor]:
    draw = stream(0, "test/prediction")
    return torch.randn(networks, batch, dims, generator=draw), torch.rand(networks, batch, dims, generator=draw) + 0.1


@pytest.mark.parametrize("name", UNCERTAINTIES)
def test_each_uncertainty_by_hand(name: str) -> None:
    mean, std = prediction()
    np.testing.assert_allclose(UNCERTAINTIES[name](mean, std), by_hand(name, mean, std), rtol=1e-5)


def test_columns_come_in_the_order_of_the_names() -> None:
    mean, std = prediction()
    for names in (tuple(UNCERTAINTIES), tuple(UNCERTAINTIES)[::-1], ("ens",), ()):
        columns = uncertainties(mean, std, names=names)
        assert columns.shape == (13, len(names))
        for u, name in enumerate(names):
            assert torch.equal(columns[:, u], UNCERTAINTIES[name](mean, std))


def test_a_marked_function_is_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "UNCERTAINTIES", dict(UNCERTAINTIES))
    monkeypatch.setattr(penalties, "PENALTIES", list(PENALTIES))

    @penalties.penalty
    def of_this_test(mean: Tensor, std: Tensor) -> Tensor:
        return std.amin(dim=(0, 2))

    @penalties.uncertainty
    def widest(mean: Tensor, std: Tensor) -> Tensor:
        return mean.amax(dim=(0, 2))

    assert list(penalties.UNCERTAINTIES) == [*UNCERTAINTIES, "of-this-test", "widest"]
    assert [*PENALTIES, "of-this-test"] == penalties.PENALTIES
    mean, std = prediction()
    columns = penalties.uncertainties(mean, std, names=("of-this-test", "widest"))
    assert torch.equal(columns, torch.stack([std.amin(dim=(0, 2)), mean.amax(dim=(0, 2))], dim=1))


@pytest.mark.parametrize("network", range(7))
def test_any_of_the_seven_networks_may_be_the_most_uncertain(network: int) -> None:
    mean, std = torch.zeros(7, 1, 4), torch.full((7, 1, 4), 0.5)
    std[network] = torch.tensor([3.0, 4.0, 0.0, 0.0])
    mean[network, 0, 1] = 7.0
    max_var, avg_var, ens = uncertainties(mean, std)[0].tolist()
    assert max_var == pytest.approx(5.0)  # sqrt(9 + 16): the norm of the std, not of the variance (sqrt(81 + 256))
    assert avg_var == pytest.approx((5.0 + 6 * 1.0) / 7)
    assert ens == pytest.approx(6.0)  # 7 from the mean of all seven, which is 1


def test_the_reward_s_std_counts_but_its_mean_does_not() -> None:
    mean, std = torch.zeros(7, 1, 4), torch.zeros(7, 1, 4)
    std[2, 0, 3], mean[2, 0, 3] = 2.0, 100.0
    assert uncertainties(mean, std)[0].tolist() == pytest.approx([2.0, 2 / 7, 0.0])


def test_the_means_do_not_move_the_variances_nor_the_variances_the_means() -> None:
    mean, std = prediction()
    before, other = uncertainties(mean, std), uncertainties(mean * 3, std * 5)
    torch.testing.assert_close(other, before * torch.tensor([5.0, 5.0, 3.0]))
    torch.testing.assert_close(uncertainties(mean + 9, std)[:, 2], before[:, 2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("elites_only", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("reward", [False, True])
@pytest.mark.parametrize("name", UNCERTAINTIES)
def test_each_form_by_hand(name: str, elites_only: bool, scaled: bool, reward: bool) -> None:
    mean, std = prediction()
    scale = torch.tensor([0.1, 3.0, 0.5, 20.0, 0.02])
    form = PenaltyForm(elites_only, scale if scaled else None, reward)
    elites = [5, 0, 2]
    networks, units = elites if elites_only else range(7), scale if scaled else torch.ones(5)
    means = torch.stack([mean[k] / units for k in networks])
    stds = torch.stack([std[k] / units for k in networks])[..., : 5 if reward else 4]
    measured = uncertainties(mean, std, form, elites, names=(name,))
    np.testing.assert_allclose(measured[:, 0], by_hand(name, means, stds), rtol=1e-5)


def test_the_released_form_is_the_default() -> None:
    mean, std = prediction()
    form = PenaltyForm(elites_only=False, scale=None, reward=True)
    assert torch.equal(uncertainties(mean, std, form, (0, 1)), uncertainties(mean, std))


def test_a_network_that_is_no_elite_counts_in_all_but_the_form_of_the_elites() -> None:
    mean, std = torch.zeros(3, 1, 3), torch.full((3, 1, 3), 0.1)
    mean[1], std[1] = 50.0, 50.0
    apart = uncertainties(mean, std, PenaltyForm(elites_only=True), (0, 2))[0]
    assert apart.tolist() == pytest.approx([np.sqrt(0.03), np.sqrt(0.03), 0.0])
    assert (uncertainties(mean, std, PenaltyForm(), (0, 2))[0] > 15).all()


def test_a_single_elite_agrees_with_itself() -> None:
    mean, std = prediction()
    alone = uncertainties(mean, std, PenaltyForm(elites_only=True), (4,))
    np.testing.assert_allclose(alone[:, 0], np.linalg.norm(std[4].numpy(), axis=1), rtol=1e-6)
    assert torch.equal(alone[:, 0], alone[:, 1]) and (alone[:, 2] == 0).all()


def test_the_weight_falls_on_the_column_of_that_name() -> None:
    names = (*MOPO, "oracle")
    assert penalty_weights("max-var", 2.5, names) == [2.5, 0.0, 0.0, 0.0]
    assert penalty_weights("oracle", 2.5, names) == [0.0, 0.0, 0.0, 2.5]
    assert penalty_weights("ens", 2.5, names) == [0.0, 0.0, 2.5, 0.0]
    assert penalty_weights("none", 2.5, names) == [0.0, 0.0, 0.0, 0.0]
