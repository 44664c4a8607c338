"""D4RL's environments, and the returns that it calls score 0 and score 100."""

# D4RL, infos.py: return of a random and of an expert policy per environment, all dataset versions.
_D4RL = {
    "Hopper": (-20.272305, 3234.3),
    "HalfCheetah": (-280.178953, 12135.0),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
}
# The environment a D4RL policy is evaluated in: -v4 has the model and reward of the -v2 it was logged in.
D4RL_ENVIRONMENTS = {family.lower(): f"{family}-v4" for family in _D4RL}
# v2 to v4 share model and reward. v5 changed both, so that a v5 return against these constants would be a
# number that looks like a D4RL score and is none.
_VERSIONS = {"v2", "v3", "v4"}


def d4rl_environment(dataset_id: str) -> str:
    """The id of the environment that a canonical D4RL id, such as hopper-medium-v2, belongs to."""
    return D4RL_ENVIRONMENTS[dataset_id.partition("-")[0]]


def reference_scores(env_id: str | None) -> tuple[float, float] | None:
    """(min, max) of ``score = 100 (return - min) / (max - min)`` for an environment of D4RL's family.

    None for every other environment, -v5 included.
    """
    family, _, version = (env_id or "").rpartition("-")
    return _D4RL.get(family) if version in _VERSIONS else None


def family_returns(env_id: str | None) -> tuple[float, float] | None:
    """D4RL's returns of a random and an expert policy for the environment's family, whatever the version.

    Near enough to say from when on a behaviour is medium; never a score's scale, see `reference_scores`.
    """
    return _D4RL.get((env_id or "").rpartition("-v")[0])
