"""Small tools for texts, files, optional packages and arrays; they know nothing about models."""
