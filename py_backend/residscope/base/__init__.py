"""Small tools for texts, files, optional packages and arrays. They do not depend on models."""
