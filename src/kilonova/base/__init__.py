"""What every room stands on: clock, ids, options, log, metrics, policy. Knows nothing of clouds."""
