"""Where the help shows a setting: in which panel, and with ``--help`` or only with ``--help-all``."""

from collections.abc import Iterable

OTHER = "Settings"
EXECUTION = "Execution"
ALGORITHMS = "Settings of single algorithms"

# Panel: the settings that --help shows, and those that only --help-all adds.
_PANELS = {
    OTHER: ("method algorithm", ""),
    "What is learned from": (
        "real_ratio rollouts h batch actions",
        "rollout_actions rollout_batch rollout_every pool_epochs rollout_precision model_reward termination_rules",
    ),
    "The penalty": (
        "penalty lam",
        "penalty_networks penalty_scale penalty_reward oracle_prediction",
    ),
    "Schedule": (
        "epochs steps_per_epoch max_epochs patience learning_rate seeds seed_list",
        "batch_size min_gain holdout_fraction holdout_max weight_decay update_precision actor_lr actor_schedule"
        " critic_lr alpha_lr gamma tau target_entropy alpha_max log_std_min log_std_max",
    ),
    "Networks": ("networks hidden layers", "spectral_norm target_scale input_scale"),
    "Evaluation": ("eval_every eval_episodes episodes policy", ""),
}
_PLACES = {
    name: (title, hidden)
    for title, parts in _PANELS.items()
    for hidden, names in zip((False, True), parts, strict=True)
    for name in names.split()
}


def place(name: str) -> tuple[str, bool]:
    """A setting's panel, and whether only ``--help-all`` shows it; a setting of no panel is shown in `OTHER`."""
    return _PLACES.get(name, (OTHER, False))


def in_order(names: Iterable[str]) -> list[str]:
    """Settings panel by panel, in a panel as listed above; those of no panel stay in their order."""
    titles, listed = list(_PANELS), list(_PLACES)
    ranks = {name: listed.index(name) if name in listed else len(listed) for name in names}
    return sorted(ranks, key=lambda name: (titles.index(place(name)[0]), ranks[name]))
