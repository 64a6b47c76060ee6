"""The agent: one per host. Runs guests through a driver, reports, and compares itself with what belongs here.

It has no database: what it needs to know it is told in commands, or asks the conductor.
"""
