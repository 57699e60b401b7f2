"""From a question to one answer: dispatch, jobs, progress, failures."""
