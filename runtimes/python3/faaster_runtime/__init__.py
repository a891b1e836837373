"""The python3 runtime of faaster: see README.md beside this package."""
