from mopo_cli.policy.door import load_model as load_model
from mopo_cli.policy.door import load_policy as load_policy
from mopo_cli.policy.door import open_run as open_run

__version__: str
__all__ = ["load_model", "load_policy", "open_run"]
