"""The settings of every stage: the one place where a setting is named, typed, bounded, described and sourced.

Flags (``--steps-per-epoch``), YAML keys (``steps-per-epoch:``), presets and the help text all come from
these models. Sources: "MOPO" is the paper's final version, "MOPO code" its authors' release.
"""

from typing import Literal, Self

from pydantic import field_validator, model_validator

from mopo_cli.agents.algorithms import NAMES as ALGORITHMS
from mopo_cli.config.axes import mark
from mopo_cli.config.fields import (
    CODE,
    ENSEMBLE,
    MOST_LAYERS,
    MOST_SEEDS,
    NAME,
    Algorithm,
    Axes,
    Horizons,
    Methods,
    Metric,
    Networks,
    Penalties,
    Penalty,
    Seed,
    Seeds,
    Settings,
    Weights,
    distinct,
    setting,
    unique,
)
from mopo_cli.nets.precision import Precision


class FetchData(Settings):
    """Settings of ``mopo fetch-data``."""

    dataset: str = setting(
        ...,
        "which data: walker2d-medium, minari:mujoco/hopper/medium-v0, generate:ENV-ID:LEVEL, hiv, or a file",
        min_length=1,
    )
    env: str | None = setting(
        None, "environment a file, or a Minari set that names none, was logged in, e.g. Hopper-v5", min_length=1
    )
    columns: str | None = setting(
        None, "where a file's columns are: obs=..., action=..., ... or a YAML file (files only)", min_length=1
    )
    termination: str = setting(
        "auto",
        "when imagined episodes end: auto (the environment's rule), a rule's name, none, or an expression over"
        " the predicted observation such as 'abs(obs[1]) > 0.2'",
        min_length=1,
    )
    relabel: str | None = setting(None, "reward rule to compute the rewards anew by", "MOPO §5.2", min_length=1)
    mirror: str | None = setting(
        None,
        "address to download D4RL sets from, followed by /gym_mujoco_v2/hopper_medium-v2.hdf5 (or MOPO_D4RL_MIRROR)",
        min_length=1,
    )
    transitions: int = setting(100_000, "transitions to log (generate:... but the replay levels)", ge=1)
    behaviour_steps: int = setting(
        1_000_000, "most steps the behaviour is trained for, the size of full-replay (generate:...)", "D4RL", ge=1
    )
    medium_return: float | None = setting(
        None, "return at which the behaviour is medium; none: a third of the way from random to expert", "D4RL"
    )
    seed: Seed = setting(0, "seed of the behaviour and the simulator (generate:... only)")


class TrainModel(Settings):
    """Settings of ``mopo train-model``."""

    networks: int = setting(7, "networks in the ensemble", ENSEMBLE, ge=1)
    hidden: int = setting(200, "units per hidden layer", ENSEMBLE, ge=1)
    layers: int = setting(4, "hidden layers", ENSEMBLE, ge=1, le=MOST_LAYERS)
    batch_size: int = setting(256, "rows per network and gradient step", CODE, ge=1)
    learning_rate: float = setting(1e-3, "Adam step size", CODE, gt=0)
    weight_decay: Weights = setting(
        (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        "factor of half the squared weights, one per hidden layer, the last for the output heads",
        CODE,
    )
    holdout_fraction: float = setting(0.2, "share of the data held out", CODE, gt=0, lt=1)
    holdout_max: int = setting(1000, "most rows held out", ENSEMBLE, ge=1)
    patience: int = setting(5, "epochs without a gain in any network before training stops", CODE, ge=1)
    min_gain: float = setting(0.01, "relative fall of the hold-out error that counts as a gain", CODE, ge=0, lt=1)
    max_epochs: int | None = setting(None, "most epochs to train; none: until no network gains", ge=1)
    spectral_norm: Literal["none", "per-network", "shared"] = setting(
        "none",
        "divide the weights of all layers but the variance head by their largest singular value, each network's own"
        " or, as the released code, one of the whole ensemble",
        "MOPO v1 App. D.2",
    )
    update_precision: Precision = setting(
        "fp32",
        "numbers that layers are multiplied in while they are fitted; bf16, and on a GPU tf32, is faster and coarser",
    )
    seeds: int = setting(1, "number of ensembles trained as one stack, seeds 0, 1, ...", ge=1, le=MOST_SEEDS)
    seed_list: Seeds | None = setting(None, "the seeds themselves, e.g. 0,3,7 (instead of --seeds)")

    _check_seeds = field_validator("seed_list")(unique)

    @model_validator(mode="after")
    def _one_decay_per_layer(self) -> Self:
        if len(self.weight_decay) != self.layers + 1:
            raise ValueError(
                f"weight-decay needs {self.layers + 1} values (one per hidden layer, the last for the heads)"
                f" where layers is {self.layers}, but has {len(self.weight_decay)}"
            )
        return self

    def all_seeds(self) -> tuple[int, ...]:
        """The seeds to train: ``seed_list`` if given, else 0, 1, ... seeds-1."""
        return self.seed_list or tuple(range(self.seeds))

    @property
    def seed_count(self) -> int:
        """How many these are."""
        return len(self.seed_list) if self.seed_list else self.seeds


class SelectElites(Settings):
    """Settings of ``mopo select-elites``."""

    n: int = setting(5, "number of elites", ENSEMBLE, ge=1)
    metric: Metric = setting("mse", "hold-out error that ranks the networks", CODE)
    networks: Networks | None = setting(None, "the elites themselves, e.g. 0,2,3,5,6 (instead of --n)")

    _check_networks = field_validator("networks")(unique)


class Imagination(Settings):
    """How the model is used wherever it imagines: in ``rollout``, ``train-policy`` and ``ablate``."""

    penalty_networks: Literal["all", "elite"] = setting(
        "all", "networks that the uncertainties look at", "MOPO code; elite: Unifloral"
    )
    penalty_scale: Literal["raw", "standardised"] = setting(
        "raw", "units of the uncertainties: the data's own, or standard deviations of the targets", CODE
    )
    penalty_reward: Literal["included", "excluded"] = setting(
        "included", "whether the reward's dimension counts in max-var and avg-var", CODE
    )
    model_reward: Literal["sampled", "mean"] = setting(
        "sampled", "the model's reward: drawn with the next state, or expected", "MOPO Alg. 2; mean: MOPO §4.3"
    )
    rollout_precision: Precision = setting(
        "fp32",
        "numbers that the model's layers are multiplied in; bf16, and on a GPU tf32, is faster and coarser",
    )
    termination_rules: Literal["fixed", "paper"] = setting(
        "fixed",
        "the task's rule without or with the slips of the released one, which has no guard against states that no"
        " body reaches; what follows a guarded row counts as the data's least reward, or 0, for ever",
        CODE,
    )


class Rollout(Imagination):
    """Settings of ``mopo rollout``."""

    h: int = setting(5, "horizon: model steps per start state", "MOPO Table 6", ge=1)
    batch: int = setting(50_000, "start states drawn from the data", CODE, ge=1)
    actions: str = setting("uniform", "who acts: uniform, or a policy file", "MOPO App. G.1", min_length=1)
    name: str | None = setting(None, "name of the file under rollouts/; none: e.g. uniform_h5", pattern=NAME)
    seed: Seed = setting(0, "seed of start states, actions and model noise")

    def file_name(self) -> str:
        """``name``, or one made from the settings: ``uniform_h5``, ``policy_h5``."""
        return self.name or f"{'uniform' if self.actions == 'uniform' else 'policy'}_h{self.h}"


class PolicyTraining(Imagination):
    """What ``train-policy`` and ``ablate`` share: everything but method, penalty, lam, h and name."""

    algorithm: Algorithm = setting("sac", f"what learns: {', '.join(ALGORITHMS)}", "MOPO")

    epochs: int = setting(1000, "epochs to train", CODE, ge=1)
    steps_per_epoch: int = setting(1000, "gradient steps per epoch", CODE, ge=1)
    seeds: int = setting(1, "number of policies trained as one stack, seeds 0, 1, ... (MOPO: 6)", ge=1, le=MOST_SEEDS)
    seed_list: Seeds | None = setting(None, "the seeds themselves, e.g. 0,3,7 (instead of --seeds)")
    rollouts: str = setting("fresh", "fresh, or a rollout file to use instead of the model", min_length=1)
    rollout_actions: Literal["policy", "uniform"] = setting(
        "policy", "who acts in the rollouts: the policy in training, or uniform noise", "MOPO App. G.1"
    )
    rollout_batch: int = setting(50_000, "start states per rollout and seed", CODE, ge=1)
    update_precision: Precision = setting(
        "fp32",
        "numbers that the learner's layers are multiplied in; bf16, and on a GPU tf32, is faster and coarser",
    )
    rollout_every: int = setting(1000, "gradient steps between rollouts", CODE, ge=1)
    pool_epochs: int = setting(5, "rollouts kept in the pool of model data", CODE, ge=1)
    real_ratio: float = setting(0.05, "share of real data in a batch", ENSEMBLE, ge=0, le=1)
    batch_size: int = setting(256, "rows per gradient step", CODE, ge=1)
    hidden: int = setting(256, "units per hidden layer of actor and critics", CODE, ge=1)
    layers: int = setting(2, "hidden layers of actor and critics", CODE, ge=1, le=MOST_LAYERS)
    actor_lr: float = setting(3e-4, "Adam step size of the actor", CODE, gt=0)
    actor_schedule: Literal["constant", "cosine"] = setting(
        "constant",
        "the actor's step size: constant, or falling to 0 over the epochs",
        "MOPO code; cosine: OfflineRL-Kit",
    )
    critic_lr: float = setting(3e-4, "Adam step size of the critics", CODE, gt=0)
    alpha_lr: float = setting(3e-4, "Adam step size of the temperature", CODE, gt=0)
    gamma: float = setting(0.99, "discount", CODE, ge=0, le=1)
    tau: float = setting(0.005, "step of the target critics", CODE, gt=0, le=1)
    target_entropy: float | None = setting(
        None,
        "entropy the temperature aims at; none: minus the action's dimension",
        "SAC 2018; MOPO code: -3",
    )
    alpha_max: float = setting(1.0, "upper bound of the temperature", "OfflineRL-Kit", gt=0)
    log_std_min: float = setting(-5.0, "lower bound of the policy's log standard deviation", "OfflineRL-Kit")
    log_std_max: float = setting(2.0, "upper bound of the policy's log standard deviation", CODE)
    oracle_prediction: Literal["mean", "sample"] = setting(
        "mean", "what penalty oracle measures: the drawn network's mean, or its sample"
    )
    eval_every: int = setting(1, "epochs between evaluations in the real task; 0: never", CODE, ge=0)
    eval_episodes: int = setting(10, "episodes per evaluation and seed", CODE, ge=1)

    _check_seeds = field_validator("seed_list")(unique)

    @property
    def needs_model(self) -> bool:
        """Whether rollouts are made: not where a file of them is given, nor where all of a batch is real."""
        return self.rollouts == "fresh" and self.has_model_rows

    @property
    def has_model_rows(self) -> bool:
        """Whether not all rows of a batch are real."""
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

    def all_seeds(self) -> tuple[int, ...]:
        """The seeds to train: ``seed_list`` if given, else 0, 1, ... seeds-1."""
        return self.seed_list or tuple(range(self.seeds))

    @property
    def seed_count(self) -> int:
        """How many these are."""
        return len(self.seed_list) if self.seed_list else self.seeds


class TrainPolicy(PolicyTraining):
    """Settings of ``mopo train-policy``."""

    method: str | None = setting(
        None, "method of a paper to take settings from (mopo presets methods); flags beat it", pattern=NAME
    )
    penalty: Penalty = setting(
        "max-var", "uncertainty u taken off the model's reward; oracle: its error, by a simulator", "MOPO §4.3, App. D"
    )
    lam: float = setting(1.0, "weight of the penalty: the reward is r - lam*u", "MOPO Table 6", ge=0)
    h: int = setting(5, "horizon: model steps per start state", "MOPO Table 6", ge=1)
    name: str | None = setting(None, "name of the policy; none: e.g. mopo_max-var_lam1_h5", pattern=NAME)

    def policy_name(self) -> str:
        """``name``, or one made from the settings: ``mopo_max-var_lam1_h5``, ``mopo_none_h5``, ``mbpo_h5``, ``bc``."""
        imagines = self.rollouts != "fresh" or self.needs_model
        penalised = self.penalty != "none" and imagines
        plain = f"mopo_{self.penalty}" if self.algorithm == "sac" else self.algorithm
        who = self.method or (f"{plain}_{self.penalty}" if self.algorithm != "sac" and penalised else plain)
        weight = f"_lam{self.lam:g}" if penalised else ""
        return self.name or f"{who}{weight}{f'_h{self.h}' if imagines else ''}"


class Evaluate(Settings):
    """Settings of ``mopo evaluate``."""

    episodes: int = setting(10, "episodes per seed", CODE, ge=1)
    policy: str | None = setting(None, "name of the policy; none: the one trained last", pattern=NAME)
    seed: Seed = setting(0, "seed of the environment's start states")


class Ablate(PolicyTraining):
    """Settings of ``mopo ablate``: a grid over methods or penalties, lam, h and ``grid``, one value of all else."""

    method: Methods = setting((), "methods to compare, instead of penalties (mopo presets methods)")
    penalty: Penalties = setting(("max-var", "none"), "penalties to compare", "MOPO App. D")
    lam: Weights = setting((1.0,), "penalty weights to compare", "MOPO Table 6")
    h: Horizons = setting((5,), "horizons to compare", "MOPO Table 6")
    grid: Axes = setting(
        {}, "values to compare of any other setting of train-policy, e.g. beta=0.5,1,5; may be given several times"
    )
    name: str | None = setting(None, "name of the folder under ablations/; none: made from the grid", pattern=NAME)

    _check_grid = field_validator("penalty", "lam", "h")(unique)
    _check_methods = field_validator("method")(distinct)

    def table_name(self) -> str:
        """``name``, or one made from the grid: ``max-var+none_lam0.5+1_h5``, ``combo+mopo_beta0.5+1``."""
        if self.name:
            return self.name
        lams = "+".join(f"{lam:g}" for lam in self.lam)
        penalties = f"{'+'.join(self.penalty)}_lam{lams}_h{'+'.join(map(str, self.h))}"
        axes = (mark(name, values) for name, values in self.grid.items())
        return ("+".join(self.method) or penalties) + "".join(axes)


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
