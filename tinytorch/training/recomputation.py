"""Memory for time: keep the inputs of a part of the model alone, and run it again on the way back.

Source: Chen et al. 2016, arXiv:1604.06174. With a part for each of n layers, what stays is n inputs and the saved
values of one layer, for one more forward pass. PyTorch has it as torch.utils.checkpoint.
"""

import contextlib
import inspect

from .. import device as devices
from ..autograd import Node, grad_mode, no_grad
from ..layers import Module
from ..tensor import Tensor, autocast_mode, wrap


def checkpoint(function, *inputs, **settings):
    """function(*inputs, **settings), keeping only the inputs: what its rules need is computed again in the backward.

    function: a Module, or anything that is called with tensors and returns one. Gradients are bit for bit those of the
    plain call: dropout draws the same numbers the second time, under the same autocast, and running statistics move
    once. Inside no_grad(), and where nothing needs a gradient, it is the plain call.
    Raises TypeError where the result is no tensor, and for inputs that a run may change, such as a cache.
    """
    return _checkpoint(function, function, inputs, settings)


class Recomputable:
    """A part of a model that recomputes itself in training once `recompute` is true.

    A class has it before Module: `class Block(Recomputable, Module)`. `recompute_blocks` sets it for all of a model.
    """

    recompute = False

    def __call__(self, *inputs, **settings):
        if self.recompute and self.training:
            return _checkpoint(self, super().__call__, inputs, settings)
        return super().__call__(*inputs, **settings)


def recompute_blocks(model, enabled=True):
    """Let the blocks of a model keep only their inputs in training, or keep all again with False. Returns the model.

    Memory then grows with the layers' inputs, not with all that happens in them, for about a third more time a step.
    Raises ValueError where the model has no such block.
    """
    blocks = [module for module in model.modules() if isinstance(module, Recomputable)]
    if not blocks:
        raise ValueError(
            "recompute_blocks needs a model with blocks that are Recomputable, such as GPT, but "
            f"{type(model).__name__} has none. Call checkpoint(module, *inputs) in its forward instead."
        )
    for block in blocks:
        block.recompute = bool(enabled)
    return model


def _checkpoint(function, run, inputs, settings):
    """`run(*inputs, **settings)`, recorded as one node; `function` is the module that it belongs to, if it does."""
    if not grad_mode.enabled:
        return run(*inputs, **settings)
    given = [*inputs, *settings.values()]
    _require_steady(function, given)
    tensors = [value for value in given if isinstance(value, Tensor) and value.requires_grad]
    if not tensors and isinstance(function, Module) and not any(p.requires_grad for p in function.parameters()):
        return run(*inputs, **settings)
    circumstances = _Circumstances(function)
    with no_grad():
        output = run(*inputs, **settings)
    if not isinstance(output, Tensor):
        raise TypeError(f"checkpoint needs {_name(function)} to return one tensor, but got a {type(output).__name__}.")
    if output.dtype.kind != "f":  # integers and booleans have no gradient
        return output

    def again():
        with circumstances.restored():
            return run(*inputs, **settings)

    result = wrap(output.data)
    result._requires_grad = True
    result.grad_fn = Recomputation("checkpoint", again, [(t.grad_fn or t, t.shape, t.dtype) for t in tensors])
    return result


def _name(function):
    return type(function).__name__ if isinstance(function, Module) else getattr(function, "__name__", repr(function))


def _require_steady(function, given):
    """Raise TypeError for what one run might change before the other: anything but tensors, arrays and constants."""
    for value in given:
        if not (value is None or isinstance(value, (Tensor, bool, int, float, str, tuple)) or hasattr(value, "dtype")):
            raise TypeError(
                f"checkpoint runs {_name(function)} twice, so it takes tensors and constants, but got a "
                f"{type(value).__name__}. Generate inside no_grad(), or switch recompute_blocks off."
            )


class Recomputation(Node):
    """A node whose rule runs a part of the model again, now recorded, and returns its output.

    The gradient goes to the node of that output. It and all before it are younger than what waits on the way back, so
    they are next there, up to the sources that the part had in the first run: the tape needs to know nothing.
    """

    __slots__ = ()

    def pull_back(self, g):
        if self.rule is None:
            self._refuse()
        output = self.rule()
        if output.shape != g.shape:
            raise RuntimeError(
                f"A checkpointed part gave shape {g.shape} at first and {output.shape} when it ran again. It needs to "
                "do the same each time: does it read something that has changed since?"
            )
        if output.requires_grad:
            yield output.grad_fn or output, g


class _Circumstances:
    """What, besides its inputs, decides what a module computes: generators, modes, autocast."""

    def __init__(self, function):
        modules = _modules_of(function)
        self.generators = {generator: generator.get_state() for generator in devices.generators_of(modules)}
        self.modes = {module: module.training for module in modules}
        self.buffers = list({id(t): t for module in modules for _, t in module.named_buffers()}.values())
        self.autocast = autocast_mode.dtype

    @contextlib.contextmanager
    def restored(self):
        """As it was, and recording, inside; afterwards as it is now, as if nothing had run."""
        states = {generator: generator.get_state() for generator in self.generators}
        modes = {module: module.training for module in self.modes}
        buffers = [tensor.data.copy() for tensor in self.buffers]
        recording, autocast = grad_mode.enabled, autocast_mode.dtype
        try:
            _set(self.generators, self.modes)
            grad_mode.enabled, autocast_mode.dtype = True, self.autocast
            yield
        finally:
            _set(states, modes)
            grad_mode.enabled, autocast_mode.dtype = recording, autocast
            for tensor, saved in zip(self.buffers, buffers):
                tensor.data[...] = saved


def _modules_of(function):
    """The modules that a function is or names, with all in them: a lambda may call a layer that stands outside."""
    named = [function, getattr(function, "__self__", None)]
    if inspect.isfunction(function):
        outside = inspect.getclosurevars(function)
        named += [*outside.nonlocals.values(), *outside.globals.values()]
    return list(dict.fromkeys(m for module in named if isinstance(module, Module) for m in module.modules()))


def _set(states, modes):
    for generator, state in states.items():
        generator.set_state(state)
    for module, mode in modes.items():
        module.training = mode
