"""A slip of the pen in the configuration is in the log."""

from pathlib import Path

from structlog.testing import capture_logs

from kilonova.base.config import Config
from kilonova.cli.unknown_options import warn_of_unknown


def test_it_is_logged_with_the_nearest_right_name(tmp_path: Path) -> None:
    file = tmp_path / "kilonova.conf"
    file.write_text("[DEFAULT]\ntransport_ulr = amqp://me:hidden@h/\n[quota]\ninstances = 5\n")
    with capture_logs() as logged:
        warn_of_unknown(Config([file]))
    [line] = logged
    assert line["log_level"] == "warning" and line["advice"] == "Did you mean 'transport_url'?"
    assert "transport_ulr" in line["cause"] and "hidden" not in str(line), "names, never values"


def test_a_file_that_went_away_stops_nobody(tmp_path: Path) -> None:
    file = tmp_path / "kilonova.conf"
    file.write_text("")
    config = Config([file])
    file.unlink()
    with capture_logs() as logged:
        warn_of_unknown(config)
    assert "kilonova.conf" in logged[0]["cause"]
