"""COMBO: an update against losses written out, values that are known, its two kinds of rows."""

from typing import Any

import pytest
import torch
from probes.agents import SETTINGS as SAC
from probes.agents import make_batch, make_sac, tensors
from probes.conservative import PLAIN, chain_errors, check_fixed_point, check_update

from mopo_cli.agents.algorithm import Batch
from mopo_cli.agents.algorithms import cql
from mopo_cli.agents.algorithms.combo import ALGORITHM, ComboSettings, first_rho_row, update
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.engine.streams import draws
from mopo_cli.errors import UsageError

SETTINGS = ComboSettings(**vars(SAC), beta=2.0, actions=3, rho="model")


@pytest.mark.parametrize("where", ["mix", "model"])
@pytest.mark.parametrize(("lse", "backup"), [("full", "deterministic"), ("paired", "soft")])
def test_one_update_against_the_losses_written_out(where: Any, lse: Any, backup: Any) -> None:
    """Critics are raised at the nine real rows alone, and kept low at the states of all rows or the others'."""
    settings = ComboSettings(**vars(PLAIN), beta=0.7, actions=2, lse=lse, backup=backup, rho=where)
    first = first_rho_row(settings, real_rows=9)
    assert first == (0 if where == "mix" else 9)
    check_update(settings, real=9, first=first)


@pytest.mark.parametrize(("where", "first"), [("mix", 0), ("model", 12)])
def test_a_step_of_the_loop_is_the_update_at_the_states_of_rho(where: Any, first: int) -> None:
    settings = ComboSettings(**vars(SAC), actions=3, rho=where)
    (plain, _, _), agents = make_batch(2), [make_sac(2, settings) for _ in range(2)]
    batch = Batch(**vars(plain), real_rows=12, index=torch.zeros(2, 12))
    metrics = update(agents[0], batch, draws((0, 1), "test/noise", 0, "cpu"), 0.5)
    draw = draws((0, 1), "test/noise", 0, "cpu")
    noise, uniform = draw.normal(2, 37, 4, 2), draw.uniform(37 - first, 3, 2)
    assert (uniform.abs() <= 1).all() and uniform.min() < -0.9 and uniform.max() > 0.9
    expected = cql.gradient_step(agents[1], batch, noise, uniform, first, 0.5)
    assert metrics.keys() == set(ALGORITHM.metrics) and all(
        torch.equal(metrics[name], expected[name]) for name in metrics
    )
    for name in ("actor", "critic", "target", "log_alpha"):
        assert torch.equal(tensors(agents[0])[name], tensors(agents[1])[name]), name


def test_the_critics_end_where_the_loss_is_least() -> None:
    check_fixed_point(ALGORITHM, share=0.5, beta=2.0)


def test_a_model_too_good_to_be_true_is_not_believed() -> None:
    """Without the term the critics take its word, with it they are below the truth there, and near it on the data."""
    out, within = chain_errors(ALGORITHM, 0.5, 1.0, beta=2.0)
    plain_out, _ = chain_errors(ALGORITHM, 0.5, 1.0, beta=0.0)
    assert plain_out.min() > 0.5 and out.max() < -0.2
    assert within.abs().max() < 2 and within.abs().mean() < 1


@pytest.mark.parametrize("ratio", ["0", "1", "0.003"])
def test_a_batch_needs_rows_of_both_kinds(ratio: str) -> None:
    with pytest.raises(UsageError, match=r"combo needs data and model rows in a batch: real-ratio .* of 256 rows"):
        resolve(TrainPolicy, flags={"method": "combo", "real_ratio": ratio})
    least = resolve(TrainPolicy, flags={"method": "combo", "real_ratio": "0.004"}).settings
    assert least.needs_model and int(256 * 0.004) == 1
