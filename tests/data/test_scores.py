import pytest

from mopo_cli.data.scores import reference_scores


def test_d4rl_environments_have_their_constants() -> None:
    assert reference_scores("Hopper-v4") == (-20.272305, 3234.3)
    assert reference_scores("HalfCheetah-v2") == (-280.178953, 12135.0)
    assert reference_scores("Walker2d-v4") == (1.629008, 4592.3)
    assert reference_scores("Ant-v4") == (-325.6, 3879.7)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "InvertedPendulum-v4", "Hopper", "hopper-v4", "", None])
def test_others_have_none(env_id: str | None) -> None:
    assert reference_scores(env_id) is None
