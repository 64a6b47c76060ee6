"""Hypervisors: the driver interface and its implementations. Drivers know no database and no queue."""
