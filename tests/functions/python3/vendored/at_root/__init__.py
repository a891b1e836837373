"""A package at the top of the zip."""
NAME = "at root"
