"""A module in the folder for packages."""
NAME = "in vendor"
