"""Runs tasks by steps, answers agents, keeps the record of who is alive."""
