"""Every uncertainty re-derived in numpy, and what each of them must and must not see."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.dynamics.penalties import PENALTIES, UNCERTAINTIES, PenaltyForm, penalty_weights, uncertainties
from mopo_cli.engine.streams import stream


def prediction(networks: int = 7, batch: int = 13, dims: int = 5) -> tuple[Tensor, Tensor]:
    draw = stream(0, "test/prediction")
    return torch.randn(networks, batch, dims, generator=draw), torch.rand(networks, batch, dims, generator=draw) + 0.1


def by_hand(name: str, mean: np.ndarray, std: np.ndarray) -> list[float]:
    values = []
    for b in range(mean.shape[1]):
        norms = [np.sqrt(sum(s**2 for s in std[k, b])) for k in range(len(std))]
        centre = [np.mean(mean[:, b, d]) for d in range(mean.shape[2] - 1)]
        distances = [np.sqrt(sum((mean[k, b, d] - c) ** 2 for d, c in enumerate(centre))) for k in range(len(mean))]
        values.append({"max-var": max(norms), "avg-var": np.mean(norms), "ens": max(distances)}[name])
    return values


@pytest.mark.parametrize("name", ["max-var", "avg-var", "ens"])
def test_each_uncertainty_by_hand(name: str) -> None:
    mean, std = prediction()
    expected = by_hand(name, mean.double().numpy(), std.double().numpy())
    np.testing.assert_allclose(UNCERTAINTIES[name](mean, std), expected, rtol=1e-5)


def test_all_of_them_in_their_order() -> None:
    mean, std = prediction()
    together = uncertainties(mean, std)
    assert together.shape == (13, 3)
    for u, name in enumerate(("max-var", "avg-var", "ens")):
        np.testing.assert_allclose(
            together[:, u], by_hand(name, mean.double().numpy(), std.double().numpy()), rtol=1e-5
        )
    assert PENALTIES == ("max-var", "avg-var", "ens"), "the order of a stored row's columns"


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


def test_penalty_weights() -> None:
    assert penalty_weights("max-var", 2.5) == [2.5, 0.0, 0.0]
    assert penalty_weights("avg-var", 2.5) == [0.0, 2.5, 0.0]
    assert penalty_weights("ens", 2.5) == [0.0, 0.0, 2.5]
    assert penalty_weights("none", 2.5) == [0.0, 0.0, 0.0]


def in_form(
    mean: np.ndarray, std: np.ndarray, elites: list[int] | None, scale: np.ndarray | None, reward: bool
) -> np.ndarray:
    """Every uncertainty by hand, the form applied number by number: `[B, 3]`."""
    networks, rows, dims = mean.shape
    units = np.ones(dims) if scale is None else scale
    out = np.zeros((rows, 3))
    for b in range(rows):
        norms, states = [], []
        for k in range(networks) if elites is None else elites:
            spread = [std[k, b, d] / units[d] for d in range(dims if reward else dims - 1)]
            norms.append(np.sqrt(np.sum(np.square(spread))))
            states.append([mean[k, b, d] / units[d] for d in range(dims - 1)])
        centre = np.mean(states, axis=0)
        out[b] = max(norms), np.mean(norms), max(np.sqrt(np.sum(np.square(centre - state))) for state in states)
    return out


@pytest.mark.parametrize("elites_only", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("reward", [False, True])
def test_each_form_by_hand(elites_only: bool, scaled: bool, reward: bool) -> None:
    mean, std = prediction()
    scale = torch.tensor([0.1, 3.0, 0.5, 20.0, 0.02]) if scaled else None
    form = PenaltyForm(elites_only, scale, reward)
    elites = (5, 0, 2)
    expected = in_form(
        mean.double().numpy(),
        std.double().numpy(),
        list(elites) if elites_only else None,
        None if scale is None else scale.double().numpy(),
        reward,
    )
    np.testing.assert_allclose(uncertainties(mean, std, form, elites), expected, rtol=1e-5)
    if elites_only:
        everyone = uncertainties(mean, std, PenaltyForm(False, scale, reward), elites)
        assert (everyone[:, [0, 2]] != uncertainties(mean, std, form, elites)[:, [0, 2]]).any(dim=0).all()


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
    names = ("max-var", "avg-var", "ens", "oracle")
    assert penalty_weights("oracle", 2.5, names) == [0.0, 0.0, 0.0, 2.5]
    assert penalty_weights("ens", 2.5, names) == [0.0, 0.0, 2.5, 0.0]
    assert penalty_weights("none", 2.5, names) == [0.0, 0.0, 0.0, 0.0]
