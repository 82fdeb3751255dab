"""Reverse-mode automatic differentiation: the recorded graph and the way back through it.

Every operation on tensors that need gradients leaves one `Node`: the rule that turns the gradient of its
output into gradients of its inputs, and where those inputs came from. Nodes carry the moment of their
creation, and an operation is always younger than its inputs, so walking from the newest node to the oldest
is a topological order: no recursion, however deep the graph.

This file knows arrays, nodes and leaves (anything with `accumulate_grad`), and no tensors.

Source: Griewank and Walther, Evaluating Derivatives (2008), chapter 3; Baydin et al., arXiv:1502.05767.
"""

import heapq
import itertools
import threading
from contextlib import contextmanager

import numpy as np

_clock = itertools.count()


class _GradMode(threading.local):
    enabled = True


grad_mode = _GradMode()


def no_grad(function=None):
    """Record nothing inside: `with no_grad():`, or `@no_grad()` (also without parentheses) above a function."""
    return _no_grad() if function is None else _no_grad()(function)


@contextmanager
def _no_grad():
    before = grad_mode.enabled
    grad_mode.enabled = False
    try:
        yield
    finally:
        grad_mode.enabled = before


class Node:
    """One recorded operation.

    `inputs` has one entry per positional argument: None where no gradient is wanted, otherwise
    `(source, shape, dtype)`, where the source is the node that made the input, or the leaf itself.
    `rule` is a tuple with one function per argument, or one function that returns all gradients.
    """

    __slots__ = ("freed", "inputs", "name", "rule", "time")

    def __init__(self, name, rule, inputs):
        self.name = name
        self.rule = rule
        self.inputs = inputs
        self.time = next(_clock)
        self.freed = False

    def pull_back(self, g):
        """Yield `(source, gradient)` for each wanted input, given the gradient `g` of the output.

        Each gradient has its input's shape and dtype. What is computed for inputs that want nothing is left out, and a
        rule of their own does not run.
        """
        shared = callable(self.rule)  # one function for all gradients, or one function each
        for edge, answer in zip(self.inputs, self._answers(g)):
            if edge is not None:
                source, shape, dtype = edge
                gradient = answer if shared else answer(g)
                yield source, _fit(gradient, shape, dtype, self.name)

    def _answers(self, g):
        """One entry per input: its gradient, where one function gives all of them, or its own function of g.

        Raises where the rule is gone, is missing, or has another form.
        """
        if self.rule is None:
            self._refuse()
        answers = self.rule
        if callable(answers):
            answers = answers(g)
            if not isinstance(answers, tuple):
                answers = (answers,)
        elif not isinstance(answers, tuple):
            raise TypeError(
                f"'{self.name}' returned a {type(answers).__name__} for its rule. A rule is a function of g, or a "
                "tuple with one such function per input: return y, lambda g: g * y"
            )
        elif not all(map(callable, answers)):
            self._require_functions(answers)
        if len(answers) < len(self.inputs) and any(edge is not None for edge in self.inputs[len(answers) :]):
            raise RuntimeError(
                f"The rule of '{self.name}' gives {len(answers)} gradients, but input number {len(answers) + 1} "
                "or a later one needs one too. Return one gradient per input, in order."
            )
        return answers

    def _refuse(self):
        if self.freed:
            raise RuntimeError(
                f"backward() went through '{self.name}' a second time, but its saved values were freed by the first. "
                "Run the forward pass again, or call the first backward(retain_graph=True)."
            )
        raise NotImplementedError(
            f"'{self.name}' has no backward rule yet: it returned only its output. Return (output, rule), where "
            "rule takes the gradient g of the output and returns the gradient of the input (or is a tuple with "
            "one such function per input), for example: return y, lambda g: g * y"
        )

    def _require_functions(self, rules):
        """None is a rule for what never needs a gradient, such as a mask; nothing else may stand for a function."""
        for edge, rule in zip(self.inputs, rules):
            if edge is not None and not callable(rule):
                if rule is None:
                    raise RuntimeError(f"The rule of '{self.name}' returned None for an input that needs a gradient.")
                raise TypeError(f"A rule of '{self.name}' is no function but a {type(rule).__name__}.")

    def free(self):
        """Drop the saved values, so that memory falls while the backward pass goes on."""
        self.freed = True
        self.rule = None
        self.inputs = ()

    def __repr__(self):
        return f"<{self.name}>"


def backward(root, gradient, retain_graph=False):
    """Send `gradient` (an array, of the shape of the root's output) from node `root` to every leaf it came from.

    Each node passes on its whole gradient, once, and is freed after that unless `retain_graph`. Leaves accumulate.
    """
    gradients = {root: gradient}
    newest_first = [(-root.time, root)]
    while newest_first:
        _, node = heapq.heappop(newest_first)
        for source, g in node.pull_back(gradients.pop(node)):
            if not isinstance(source, Node):
                source.accumulate_grad(g)
            elif source in gradients:
                gradients[source] = gradients[source] + g  # out of place: g may be shared
            else:
                gradients[source] = g
                heapq.heappush(newest_first, (-source.time, source))
        if not retain_graph:
            node.free()


def unbroadcast(g, shape):
    """Sum `g` over the axes along which an input of shape `shape` was stretched by broadcasting.

    `g` has a shape that `shape` broadcasts to; the result has shape `shape`.
    """
    if g.shape == shape:
        return g
    new = g.ndim - len(shape)  # axes in front that the input did not have
    stretched = [new + axis for axis, size in enumerate(shape) if size == 1 and g.shape[new + axis] != 1]
    return np.sum(g, axis=(*range(new), *stretched)).reshape(shape)


def _fit(gradient, shape, dtype, name):
    """Give a gradient the shape and dtype of its input, or say which rule went wrong."""
    if type(gradient) is np.ndarray and gradient.shape == shape and gradient.dtype == dtype:
        return gradient
    if gradient is None:
        raise RuntimeError(f"The rule of '{name}' returned None for an input that needs a gradient.")
    if not hasattr(gradient, "ndim") or hasattr(gradient, "grad_fn"):
        raise TypeError(f"The rule of '{name}' needs to return an array, but returned a {type(gradient).__name__}.")
    if isinstance(gradient, np.generic):  # what NumPy makes of an array without axes
        gradient = np.asarray(gradient)
    if gradient.shape != shape:
        stretched = (1,) * (gradient.ndim - len(shape)) + shape
        if any(size not in (1, came) for size, came in zip(stretched, gradient.shape)) or gradient.ndim < len(shape):
            raise RuntimeError(
                f"The rule of '{name}' gave a gradient of shape {gradient.shape} for an input of shape {shape}. "
                "A gradient has the shape of its input, or the shape that the input was broadcast to."
            )
        gradient = unbroadcast(gradient, shape)
    return gradient if gradient.dtype == dtype else gradient.astype(dtype)


def directional_derivative(function, inputs, directions, step=1e-6):
    """d/ds function(inputs + s * directions) at s = 0, by a central difference, on raw float64 arrays."""
    ahead = function(*(x + step * v for x, v in zip(inputs, directions)))
    behind = function(*(x - step * v for x, v in zip(inputs, directions)))
    return (ahead - behind) / (2 * step)
