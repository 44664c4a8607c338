"""The settings of every stage: the one place where a setting is named, typed, bounded, described and sourced.

Flags (``--steps-per-epoch``), YAML keys (``steps-per-epoch:``), presets and the help text all come from
these models. Sources: "MOPO" is the paper's final version, "MOPO code" its authors' release.

To add a setting, add a line to the class of its stage; flag, YAML key and help follow. Name it in a panel of
`cli.options` (else it stands under "Settings"). What uses it takes it by its name: `dynamics.fit.FitSettings` for
the model, `agents.schedule.LoopSettings` for the training loop, or the settings of an algorithm.
"""

from typing import Literal, Self

from pydantic import field_validator, model_validator

from mopo_cli.agents.algorithms import NAMES as ALGORITHMS
from mopo_cli.config.fields import (
    COARSER,
    CODE,
    ENSEMBLE,
    MOST_LAYERS,
    MOST_SEEDS,
    NAME,
    UNITS,
    Algorithm,
    Axes,
    Horizons,
    Methods,
    Metric,
    Networks,
    Penalties,
    Penalty,
    Scale,
    Seed,
    Seeded,
    Seeds,
    Settings,
    Text,
    Weights,
    distinct,
    mark,
    setting,
    unique,
    word,
)
from mopo_cli.config.schema_data import FetchData
from mopo_cli.nets.precision import Precision

JUDGE_SHARE = (
    "share of episodes hidden from training, for evaluate --ope; none: 0.2 if the data name no environment, else 0"
)


class TrainModel(Seeded, Settings):
    """Settings of ``mopo train-model``."""

    networks: int = setting(7, "networks in the ensemble", ENSEMBLE, ge=1)
    hidden: int = setting(200, "units per hidden layer", ENSEMBLE, ge=1)
    layers: int = setting(4, "hidden layers", ENSEMBLE, ge=1, le=MOST_LAYERS)
    batch_size: int = setting(256, "rows per network and gradient step", CODE, ge=1)
    learning_rate: float = setting(1e-3, "learning rate (Adam)", CODE, gt=0)
    weight_decay: Weights = setting(
        (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        "weight decay, times half the squared weights: one value per hidden layer, the last for the output heads",
        CODE,
    )
    holdout_fraction: float = setting(0.2, "share of the data held out for validation", CODE, gt=0, lt=1)
    holdout_max: int = setting(1000, "most rows to hold out", ENSEMBLE, ge=1)
    patience: int = setting(5, "stop after this many epochs without improvement in any network", CODE, ge=1)
    min_gain: float = setting(0.01, "relative drop of the hold-out error that counts as improvement", CODE, ge=0, lt=1)
    max_epochs: int | None = setting(None, "most epochs; none: until no network improves", ge=1)
    spectral_norm: Literal["none", "per-network", "shared"] = setting(
        "none",
        "divide all weights but the variance head's by their largest singular value: one per network, or one shared by"
        " the ensemble as in the released code",
        "MOPO v1 App. D.2",
    )
    target_scale: Scale = setting("raw", f"units that the model's targets are learned in: {UNITS}", CODE)
    judge_share: float | None = setting(None, JUDGE_SHARE, ge=0, lt=1)
    update_precision: Precision = setting("fp32", f"precision of matrix products in training; {COARSER}")
    seeds: int = setting(1, "number of ensembles to train together, seeds 0, 1, ...", ge=1, le=MOST_SEEDS)
    seed_list: Seeds | None = setting(None, "seeds to use instead, e.g. 0,3,7")

    _check_seeds = field_validator("seed_list")(unique)

    @model_validator(mode="after")
    def _one_decay_per_layer(self) -> Self:
        if len(self.weight_decay) != self.layers + 1:
            raise ValueError(
                f"weight-decay needs {self.layers + 1} values (one per hidden layer, the last for the heads)"
                f" where layers is {self.layers}, but has {len(self.weight_decay)}"
            )
        return self


class SelectElites(Settings):
    """Settings of ``mopo select-elites``."""

    n: int = setting(5, "number of elites", ENSEMBLE, ge=1)
    metric: Metric = setting("mse", "hold-out error to rank the networks by", CODE)
    networks: Networks | None = setting(None, "the elites themselves, e.g. 0,2,3,5,6 (instead of --n)")

    _check_networks = field_validator("networks")(unique)


class Imagination(Settings):
    """How the model makes transitions: in ``rollout``, ``train-policy`` and ``ablate``."""

    penalty_networks: Literal["all", "elite"] = setting(
        "all", "networks that the uncertainties look at", "MOPO code; elite: Unifloral"
    )
    penalty_scale: Scale = setting("raw", f"units of the uncertainty: {UNITS}", CODE)
    penalty_reward: Literal["included", "excluded"] = setting(
        "included", "whether max-var and avg-var include the reward dimension", CODE
    )
    model_reward: Literal["sampled", "mean", "known"] = setting(
        "sampled",
        "reward of the model: sampled with the next state, its mean, or that of fetch-data --reward",
        "MOPO Alg. 2; mean: MOPO §4.3; known: MOPO §4.2, footnote 3",
    )
    rollout_precision: Precision = setting("fp32", f"precision of the model's matrix products in rollouts; {COARSER}")
    termination_rules: Literal["fixed", "paper"] = setting(
        "fixed",
        "the task's termination rule: corrected, or with the released code's bugs; the corrected rule also stops at"
        " impossible states, which then pay the data's lowest reward (at most 0) forever",
        CODE,
    )


class Rollout(Imagination):
    """Settings of ``mopo rollout``."""

    h: int = setting(5, "rollout length: model steps per start state", "MOPO Table 6", ge=1)
    batch: int = setting(50_000, "start states drawn from the data", CODE, ge=1)
    actions: Text = setting("uniform", "actions in the rollout: uniform (random), or a policy file", "MOPO App. G.1")
    name: str | None = setting(None, "name of the file in rollouts/; none: e.g. uniform_h5", pattern=NAME)
    seed: Seed = setting(0, "seed of start states, actions and model noise")

    def file_name(self) -> str:
        """``name``, or one made from the settings: ``uniform_h5``, ``policy_h5``."""
        return self.name or f"{'uniform' if self.actions == 'uniform' else 'policy'}_h{self.h}"


class PolicyTraining(Seeded, Imagination):
    """What ``train-policy`` and ``ablate`` share: everything but method, penalty, lam, h and name."""

    algorithm: Algorithm = setting("sac", f"learning algorithm: {', '.join(ALGORITHMS)}", "MOPO")
    epochs: int = setting(1000, "epochs to train; data of your own: 80", CODE, ge=1)
    steps_per_epoch: int = setting(1000, "gradient steps per epoch", CODE, ge=1)
    seeds: int = setting(1, "number of policies to train together, seeds 0, 1, ...", "MOPO: 6", ge=1, le=MOST_SEEDS)
    seed_list: Seeds | None = setting(None, "seeds to use instead, e.g. 0,3,7")
    input_scale: Scale = setting("raw", f"units of observations for actor and critics: {UNITS}", CODE)
    judge_share: float | None = setting(None, f"{JUDGE_SHARE}; beside a model, the model's", ge=0, lt=1)
    rollouts: Text = setting("fresh", "rollouts to learn from: fresh (made during training), or a rollout file")
    rollout_actions: Literal["policy", "uniform"] = setting(
        "policy", "actions in rollouts: the current policy's, or uniform random ones", "MOPO App. G.1"
    )
    rollout_batch: int = setting(50_000, "start states per rollout and seed", CODE, ge=1)
    update_precision: Precision = setting("fp32", f"precision of matrix products in training; {COARSER}")
    rollout_every: int = setting(1000, "gradient steps between rollouts", CODE, ge=1)
    pool_epochs: int = setting(5, "number of latest rollouts kept in the pool of model data", CODE, ge=1)
    real_ratio: float = setting(0.05, "share of real data in a batch", ENSEMBLE, ge=0, le=1)
    batch_size: int = setting(256, "rows per gradient step", CODE, ge=1)
    hidden: int = setting(256, "units per hidden layer of actor and critics", CODE, ge=1)
    layers: int = setting(2, "hidden layers of actor and critics", CODE, ge=1, le=MOST_LAYERS)
    actor_lr: float = setting(3e-4, "learning rate of the actor (Adam)", CODE, gt=0)
    actor_schedule: Literal["constant", "cosine"] = setting(
        "constant",
        "learning rate of the actor: constant, or cosine decay to 0; data of your own: cosine",
        "MOPO code; cosine: OfflineRL-Kit",
    )
    critic_lr: float = setting(3e-4, "learning rate of the critics (Adam)", CODE, gt=0)
    alpha_lr: float = setting(3e-4, "learning rate of the temperature (Adam)", CODE, gt=0)
    gamma: float = setting(0.99, "discount factor", CODE, ge=0, le=1)
    tau: float = setting(0.005, "update rate of the target critics", CODE, gt=0, le=1)
    target_entropy: float | None = setting(
        None, "target entropy; none: minus the action dimension", "SAC 2018; MOPO code: -3"
    )
    alpha_max: float = setting(1.0, "upper bound of the temperature", "OfflineRL-Kit", gt=0)
    log_std_min: float = setting(-5.0, "lower bound of the policy's log standard deviation", "OfflineRL-Kit")
    log_std_max: float = setting(2.0, "upper bound of the policy's log standard deviation", CODE)
    oracle_prediction: Literal["mean", "sample"] = setting(
        "mean", "prediction whose error penalty oracle measures: a network's mean, or its sample"
    )
    eval_every: int = setting(1, "epochs between evaluations in the real environment; 0: never", CODE, ge=0)
    eval_episodes: int = setting(10, "episodes per evaluation and seed", CODE, ge=1)

    _check_seeds = field_validator("seed_list")(unique)

    @property
    def needs_model(self) -> bool:
        """Whether training makes rollouts: neither a rollout file nor batches of real rows alone need any."""
        return self.rollouts == "fresh" and self.has_model_rows

    @property
    def has_model_rows(self) -> bool:
        """Whether a batch has rows of the model."""
        return int(self.batch_size * self.real_ratio) < self.batch_size

    @classmethod
    def shared(cls) -> set[str]:
        """The settings that all policies of a stack have in common."""
        return set(cls.model_fields) - {"method", "penalty", "lam", "h", "name"}

    @property
    def updates(self) -> int:
        """Gradient steps of a policy."""
        return self.epochs * self.steps_per_epoch

    @model_validator(mode="after")
    def _log_std_bounds_are_ordered(self) -> Self:
        if self.log_std_min >= self.log_std_max:
            raise ValueError(f"log-std-min {self.log_std_min:g} must be below log-std-max {self.log_std_max:g}")
        return self


class TrainPolicy(PolicyTraining):
    """Settings of ``mopo train-policy``."""

    method: str | None = setting(
        None, "method of a paper (mopo presets methods); flags override its settings", pattern=NAME
    )
    penalty: Penalty = setting(
        "max-var",
        "uncertainty u that lowers the reward; oracle: true error, by a simulator",
        "MOPO §4.3, App. D",
    )
    lam: float = setting(1.0, "weight of the penalty: the reward is r - lam * u", "MOPO Table 6", ge=0)
    h: int = setting(5, "rollout length: model steps per start state", "MOPO Table 6", ge=1)
    name: str | None = setting(None, "name of the policy; none: e.g. mopo_max-var_lam1_h5", pattern=NAME)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and name.endswith(("-bound", "-ope")):
            raise ValueError("must not end in -bound or -ope: evaluations of other policies are called so")
        return name

    def policy_name(self) -> str:
        """``name``, or one made from the settings: ``mopo_max-var_lam1_h5``, ``mopo_none_h5``, ``mbpo_h5``, ``bc``."""
        has_rollouts = self.rollouts != "fresh" or self.needs_model
        penalised = self.penalty != "none" and has_rollouts
        penalty = f"_{self.penalty}" if penalised or self.algorithm == "sac" else ""
        method = self.method or f"{'mopo' if self.algorithm == 'sac' else self.algorithm}{penalty}"
        lam, h = f"_lam{word(self.lam)}" if penalised else "", f"_h{self.h}" if has_rollouts else ""
        return self.name or f"{method}{lam}{h}"


class Evaluate(Settings):
    """Settings of ``mopo evaluate``."""

    episodes: int = setting(10, "episodes per seed", CODE, ge=1)
    policy: str | None = setting(None, "name of the policy to evaluate; none: the one trained last", pattern=NAME)
    seed: Seed = setting(0, "seed of the environment's start states")


class Ablate(PolicyTraining):
    """Settings of ``mopo ablate``: a grid over methods or penalties, lam, h and ``grid``; all else has one value."""

    method: Methods = setting((), "methods to compare, instead of penalties (mopo presets methods)")
    penalty: Penalties = setting(("max-var", "none"), "penalties to compare", "MOPO App. D")
    lam: Weights = setting((1.0,), "penalty weights to compare", "MOPO Table 6")
    h: Horizons = setting((5,), "horizons to compare", "MOPO Table 6")
    grid: Axes = setting({}, "other settings to compare, e.g. beta=0.5,1,5; repeatable")
    name: str | None = setting(None, "folder in ablations/; none: named after the grid", pattern=NAME)

    _check_grid = field_validator("penalty", "lam", "h")(unique)
    _check_methods = field_validator("method")(distinct)

    def table_name(self) -> str:
        """``name``, or one made from the grid: ``max-var+none_lam0.5+1_h5``, ``combo+mopo_beta0.5+1``."""
        lams = "+".join(map(word, self.lam))
        penalties = f"{'+'.join(self.penalty)}_lam{lams}_h{'+'.join(map(str, self.h))}"
        axes = "".join(mark(name, values) for name, values in self.grid.items())
        return self.name or ("+".join(self.method) or penalties) + axes


STAGES: dict[str, type[Settings]] = {
    "fetch-data": FetchData,
    "train-model": TrainModel,
    "select-elites": SelectElites,
    "rollout": Rollout,
    "train-policy": TrainPolicy,
    "evaluate": Evaluate,
    "ablate": Ablate,
}
"""Settings of each stage, by the name of its command; also the section names of a YAML file."""
