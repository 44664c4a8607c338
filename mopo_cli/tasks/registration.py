"""The Gymnasium ids of the environments that ship with mopo, registered when this module is imported.

Elsewhere: ``gymnasium.make("mopo_cli.tasks.registration:mopo/HalfCheetahJump-v0")``, or import this module
once and leave the prefix out. Gymnasium 1.0 did away with registering at installation.
"""

import gymnasium as gym

NAMESPACE = "mopo"

# (name, where the class is, time limit in steps): MuJoCo's usual limit, and 400 days of treatment.
_ENVIRONMENTS = (
    ("HalfCheetahJump-v0", "halfcheetah_jump:HalfCheetahJump", 1000),
    ("AntAngle-v0", "ant_angle:AntAngle", 1000),
    ("HIVTreatment-v0", "hiv:HIVTreatment", 400),
)

ENV_IDS = tuple(f"{NAMESPACE}/{name}" for name, _, _ in _ENVIRONMENTS)
"""What `gymnasium.make` can be asked for."""

for _env_id, (_, _place, _limit) in zip(ENV_IDS, _ENVIRONMENTS, strict=True):
    gym.register(_env_id, f"mopo_cli.tasks.{_place}", max_episode_steps=_limit)
