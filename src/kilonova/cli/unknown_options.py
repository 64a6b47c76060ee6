"""Names in the configuration that no option has: said in the log at start, for oslo.config passes over them."""

from kilonova.base.config import Config, ConfigError
from kilonova.base.log import get_logger
from kilonova.cli.docs import known_options

log = get_logger(__name__)


def warn_of_unknown(config: Config) -> None:
    """Log each with the nearest name that an option has. It is no reason not to start."""
    try:
        found = config.unknown(known_options())
    except ConfigError as error:
        log.warning("the configuration cannot be looked through", cause=str(error))
        return
    for name in found:
        log.warning("option is not known, and has no effect", cause=str(name), advice=name.advice)
