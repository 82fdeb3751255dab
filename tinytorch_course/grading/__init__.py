"""Grading a class: every exercise of every submission in a process of its own, and what is made of the results."""


class GradingError(ValueError):
    """Something that keeps a class from being graded, with the reason and the likely fix."""
