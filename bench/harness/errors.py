"""The three ways in which a benchmark fails."""


class Setup(Exception):
    """The machine or the tree lacks something; the text says what to do."""


class Unavailable(Exception):
    """One contender cannot take part; the run goes on without it and the summary says so."""


class Invalid(Exception):
    """A contender answered wrongly or not at all: its numbers would mean nothing."""
