"""The brokers that can carry remote calls, one a module; `base` says what they must do."""
