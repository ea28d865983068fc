"""The folders in which the configs of a command lie."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from uar.launch.resolvers import CONF


def config_folders() -> list[Path]:
    """Those that the command line adds (--config-dir, hydra.searchpath), and then `conf`."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    own = [Path(source.path) for source in sources if source.schema == "file"]
    return [*dict.fromkeys(folder for folder in own if folder != CONF), CONF]
