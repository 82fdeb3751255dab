"""Modules hold parameters and other modules; their keys are PyTorch's."""

from collections import namedtuple
from contextlib import contextmanager

import numpy as np

from .. import device as devices
from ..tensor import Tensor, device_and_dtype, float32, float64

MissingAndUnexpected = namedtuple("MissingAndUnexpected", "missing_keys unexpected_keys")


class Parameter(Tensor):
    """A tensor that a module learns: a floating point leaf that asks for its gradient."""

    __slots__ = ()

    def __init__(self, data, requires_grad=True):
        super().__init__(data, requires_grad=requires_grad)


class Module:
    """A function with parameters. Subclasses assign parameters and modules as attributes and define `forward`."""

    training = True
    _buffers = frozenset()  # the names that register_buffer was given

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def forward(self, *args, **kwargs):
        raise TypeError(f"{type(self).__name__} needs a forward method.")

    # ---- what is inside, in the order of assignment

    def named_children(self):
        """Yield (name, module) for the modules directly inside."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple, dict)):
                inside = value.values() if isinstance(value, dict) else value
                if any(isinstance(item, (Module, Parameter)) for item in inside):
                    raise TypeError(
                        f"{type(self).__name__}.{name} is a {type(value).__name__}, and the parameters in it would be "
                        "missed. Keep modules in a ModuleList, and parameters as attributes of their own."
                    )

    def named_modules(self):
        """Yield (dotted name, module) for this module and all inside it; a shared one comes once."""
        seen = set()
        for name, module in self._everywhere(""):
            if module not in seen:
                seen.add(module)
                yield name, module

    def _everywhere(self, prefix):
        yield prefix, self
        for name, child in self.named_children():
            yield from child._everywhere(f"{prefix}.{name}" if prefix else name)

    def modules(self):
        return (module for _, module in self.named_modules())

    def register_buffer(self, name, tensor):
        """Keep a tensor as attribute `name` that is saved and moved with the module, but not learned."""
        self._buffers |= {name}
        setattr(self, name, tensor)

    def named_buffers(self):
        """Yield (dotted name, tensor) for the tensors that are saved but not learned."""
        yield from ((name, tensor) for name, tensor in self._tensors() if not isinstance(tensor, Parameter))

    def named_parameters(self):
        """Yield (dotted name, parameter); a parameter that is shared comes once, under its first name."""
        seen = set()
        for name, tensor in self._tensors():
            if isinstance(tensor, Parameter) and tensor not in seen:
                seen.add(tensor)
                yield name, tensor

    def parameters(self):
        return (parameter for _, parameter in self.named_parameters())

    def _tensors(self):
        """Yield (dotted name, tensor) for all parameters and buffers; shared ones come under each of their names."""
        for prefix, module in self._everywhere(""):
            for name, value in vars(module).items():
                if isinstance(value, Parameter) or (name in module._buffers and value is not None):
                    yield f"{prefix}.{name}" if prefix else name, value

    # ---- changing all of it

    def apply(self, function):
        """Call `function` on every module inside, then on this one. Returns this module."""
        for _, child in self.named_children():
            child.apply(function)
        function(self)
        return self

    def train(self, mode=True):
        """Switch this module and all inside it to training behaviour (dropout active), or back with False.

        Returns this module.
        """
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self):
        """Switch to evaluation behaviour."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Learn all parameters, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none=True):
        """Forget the gradients, or fill them with zeros."""
        zero_gradients(self.parameters(), set_to_none)

    def to(self, *wanted, device=None, dtype=None):
        """Move all tensors to a device and floating point tensors to a dtype, in place."""
        device, dtype = device_and_dtype(wanted, device, dtype)
        if dtype is not None and np.dtype(dtype).kind != "f":
            raise TypeError(f"The parameters of a module are floating point numbers, but were asked to be {dtype}.")
        for _, tensor in self._tensors():
            tensor.data = tensor.detach().to(device=device, dtype=dtype if tensor.dtype.kind == "f" else None).data
            tensor.grad = None
        return self

    def float(self):
        """Floating point tensors in float32, in place."""
        return self.to(float32)

    def double(self):
        """Floating point tensors in float64, in place."""
        return self.to(float64)

    # ---- saving and loading

    def state_dict(self):
        """All parameters and buffers by dotted name, sharing memory with the module."""
        return {name: tensor.detach() for name, tensor in self._tensors()}

    def load_state_dict(self, state_dict, strict=True):
        """Copy tensors (ours, NumPy's or PyTorch's) into the parameters and buffers of the same names.

        Everything is checked before anything is copied. Raises KeyError for missing or unexpected names where
        `strict`, and ValueError for a wrong shape. Returns both lists of names.
        """
        own = dict(self._tensors())
        given = {name: _to_array(value) for name, value in self.adapt_state_dict(dict(state_dict)).items()}
        missing, unexpected = [n for n in own if n not in given], [n for n in given if n not in own]
        if strict:
            _require_no_names(self, missing, unexpected)
        common = [name for name in own if name in given]
        for name in common:
            _require_shape(name, own[name].shape, given[name].shape)
        for name in common:
            own[name].data[...] = devices.to_device(given[name], own[name].device)
        return MissingAndUnexpected(missing, unexpected)

    def adapt_state_dict(self, state_dict, prefix=""):
        """Rename or split the keys of a foreign state dict. A module that has a twin elsewhere overrides this."""
        for name, child in self.named_children():
            state_dict = child.adapt_state_dict(state_dict, f"{prefix}{name}.")
        return state_dict

    def extra_repr(self):
        """The settings to show in the repr."""
        return ""

    def __repr__(self):
        inside = "".join(f"\n({name}): {child!r}" for name, child in self.named_children())
        inside = inside.replace("\n", "\n  ") + "\n" if inside else ""
        return f"{type(self).__name__}({self.extra_repr()}{inside})"


def zero_gradients(parameters, set_to_none):
    """What `zero_grad` does, of modules and of optimizers: drop gradients, or fill them with zeros."""
    for parameter in parameters:
        if set_to_none or parameter.grad is None:
            parameter.grad = None
        else:
            parameter.grad = Tensor(np.zeros_like(parameter.data))


def _to_array(value):
    """The array behind a tensor of ours or of PyTorch's (which may need detaching), or an array itself."""
    if isinstance(value, Tensor):
        return value.data
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _require_no_names(module, missing, unexpected):
    """Raise KeyError where a list of names that do not fit is not empty."""
    if missing or unexpected:
        raise KeyError(
            f"The state dict does not fit {type(module).__name__}: missing {missing or 'nothing'}, unexpected "
            f"{unexpected or 'nothing'}. Build the module with the same settings, or pass strict=False."
        )


def _require_shape(name, own, given):
    """Raise ValueError unless the two shapes are equal."""
    if own != given:
        raise ValueError(f"{name} needs shape {own}, but the state dict has {given}.")


@contextmanager
def evaluating(module, inside=None):
    """Evaluation behaviour inside; afterwards each module inside is again in the mode that it was in.

    inside: the list of module.modules(), where this happens so often that the search for them takes time.
    """
    inside = list(module.modules()) if inside is None else inside
    modes = [inner.training for inner in inside]
    for inner in inside:
        inner.training = False
    try:
        yield
    finally:
        for inner, mode in zip(inside, modes):
            inner.training = mode


def require_positive(**sizes):
    """Raise ValueError unless each size is an integer above 0; names are shown as given."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size <= 0:
            raise ValueError(f"{name} needs an integer of at least 1, but got {size!r}.")
