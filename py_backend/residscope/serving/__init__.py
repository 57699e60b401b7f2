"""Answers requests: dispatch, jobs, progress, failures."""
