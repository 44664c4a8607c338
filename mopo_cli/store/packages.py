"""Packages that not everybody has installed."""

from importlib.util import find_spec

from mopo_cli.errors import SettingsError


def require_package(what: str, package: str) -> None:
    """SettingsError, which ``what`` needs the package, where it is not installed."""
    spec = find_spec(package)
    # What has no origin is a folder of that name in the working directory.
    if spec is None or spec.origin is None:
        raise SettingsError(
            f"{what} needs the package {package}, which is not installed.", hint=f"pip install {package}"
        )
