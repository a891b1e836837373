"""What a section of `bench/coldstarts` found, and whether that is within its limit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`limit` is None for what is told and not judged."""

    what: str
    value: float
    limit: float | None
    unit: str
    at_least: bool = False

    def passes(self):
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self):
        """In one line, with its verdict."""
        text = f"{self.what}: {self.value:.2f} {self.unit}"
        if self.limit is None:
            return text
        sign = ">=" if self.at_least else "<="
        return f"{text} (target {sign} {self.limit:g}): **{'pass' if self.passes() else 'MISS'}**"


def percentile(values, share):
    """The smallest value that `share` percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * share // 100) - 1)]
