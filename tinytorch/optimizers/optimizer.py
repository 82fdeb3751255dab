"""The frame of every optimizer: parameter groups, state, and one buffer for many parameters.

An optimizer lays the parameters of a group side by side in one buffer, and each `Parameter.data` becomes a view into
it: an update is a handful of array expressions, however many parameters there are.
"""

import itertools
import math
from collections.abc import Iterable

import numpy as np

from .. import device as devices
from ..layers import zero_gradients
from ..tensor import Tensor

BLOCK = 1 << 15  # elements updated at a time on the host: the passes of one update stay in the processor's cache


class FlatParameters:
    """Parameters of one dtype and device side by side in one buffer, with their gradients and optimizer state."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.ends = list(itertools.accumulate(parameter.numel() for parameter in parameters))
        self.starts = [0, *self.ends[:-1]]
        self.steps = [0] * len(parameters)
        self.state = {}
        self.adopt()

    def adopt(self):
        """Copy the parameters into a new buffer and make them views of it."""
        self.data = np.concatenate([parameter.data.reshape(-1) for parameter in self.parameters])
        for parameter, start, end in zip(self.parameters, self.starts, self.ends):
            parameter.data = self.data[start:end].reshape(parameter.shape)
        self.views = [parameter.data for parameter in self.parameters]
        self.grad = np.empty_like(self.data)

    @property
    def on_host(self):
        return isinstance(self.data, np.ndarray)

    def is_foreign(self):
        """Whether somebody gave a parameter an array of another dtype or device."""
        kind = (self.data.dtype, devices.device_of(self.data))
        return any((parameter.dtype, parameter.device) != kind for parameter in self.parameters)

    def buffer(self, name):
        """The state called `name`, one number per element, zeros at first."""
        if name not in self.state:
            self.state[name] = np.zeros_like(self.data)
        return self.state[name]

    def runs(self):
        """Gather the gradients; yield (step, slice) for each stretch of neighbours that have one and the same age."""
        if any(p.data is not view or view.base is not self.data for p, view in zip(self.parameters, self.views)):
            self.adopt()  # somebody assigned a new array, or copied everything
        fresh = [parameter.grad is not None for parameter in self.parameters]
        for i in itertools.compress(range(len(fresh)), fresh):
            parameter = self.parameters[i]
            if parameter.grad.shape != parameter.shape:
                raise ValueError(f"A parameter of shape {parameter.shape} has a gradient of {parameter.grad.shape}.")
            self.grad[self.starts[i] : self.ends[i]] = parameter.grad.data.reshape(-1)
            self.steps[i] += 1
        for (has_grad, step), run in itertools.groupby(range(len(fresh)), key=lambda i: (fresh[i], self.steps[i])):
            if has_grad:
                run = list(run)
                yield step, slice(self.starts[run[0]], self.ends[run[-1]])


class Optimizer:
    """The frame of an optimizer: groups of parameters with settings, and `update` for one stretch of numbers.

    `params`: parameters, or dicts {"params": [...], "lr": ...} whose settings differ by group.
    """

    def __init__(self, params, **defaults):
        if not isinstance(params, Iterable):
            raise TypeError(f"An optimizer needs parameters, but got {params!r}. Pass model.parameters().")
        params = list(params)
        if not params:
            raise ValueError("An optimizer needs parameters, but got none. Pass model.parameters().")
        groups = params if isinstance(params[0], dict) else [{"params": params}]
        self.param_groups = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        everything = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter in everything:
            if not (isinstance(parameter, Tensor) and parameter.is_leaf and parameter.dtype.kind == "f"):
                raise TypeError(f"An optimizer needs floating point leaves as parameters, but got {parameter!r}.")
        if len(set(everything)) < len(everything):
            raise ValueError("A parameter was given twice. Give each to one group, once.")
        for group in self.param_groups:
            self.check(group)
        self._flats = [_by_kind(group["params"]) for group in self.param_groups]

    def check(self, group):
        """Raise ValueError for settings out of range."""
        for name in ("lr", "weight_decay", "eps", "momentum"):
            if group.get(name, 0) < 0 or not math.isfinite(group.get(name, 0)):
                raise ValueError(f"{type(self).__name__} needs {name} of at least 0, but got {group[name]}.")

    def zero_grad(self, set_to_none=True):
        """Forget the gradients, or fill them with zeros."""
        zero_gradients((parameter for group in self.param_groups for parameter in group["params"]), set_to_none)

    def step(self):
        """Change every parameter that has a gradient."""
        if any(flat.is_foreign() for flats in self._flats for flat in flats):
            saved = self.state_dict()
            self._flats = [_by_kind(group["params"]) for group in self.param_groups]
            self.load_state_dict(saved)
        for group, flats in zip(self.param_groups, self._flats):
            for flat in flats:
                for step, run in flat.runs():
                    state = [flat.buffer(name) for name in self.state_names(group)]
                    size = BLOCK if flat.on_host else len(flat.data)
                    for start in range(run.start, run.stop, size):
                        block = slice(start, min(start + size, run.stop))
                        self.update(group, step, flat.data[block], flat.grad[block], *(s[block] for s in state))

    def state_names(self, group):
        """The names of the numbers that are kept per element."""
        return ()

    def update(self, group, step, p, g, *state):
        """Change p, and the state, in place. g is a scratch copy of the gradient that may be overwritten."""
        raise NotImplementedError(f"{type(self).__name__} needs an update method.")

    # ---- saving and loading, in PyTorch's form

    def state_dict(self):
        """{"state": {number: {name: array}}, "param_groups": [{settings, "params": [numbers]}]}."""
        state, groups, number = {}, [], itertools.count()
        for group, flats in zip(self.param_groups, self._flats):
            numbers = {parameter: next(number) for parameter in group["params"]}
            for flat in flats:
                for parameter, step, start, end in zip(flat.parameters, flat.steps, flat.starts, flat.ends):
                    if step:
                        saved = {
                            name: flat.buffer(name)[start:end].reshape(parameter.shape)
                            for name in self.state_names(group)
                        }
                        state[numbers[parameter]] = {"step": step, **saved}
            settings = {name: value for name, value in group.items() if name != "params"}
            groups.append({**settings, "params": list(numbers.values())})
        return {"state": state, "param_groups": groups}

    def check_state_dict(self, state_dict):
        """Raise ValueError, with what differs, where `state_dict` is of other parameters or another optimizer."""
        saved = [len(group["params"]) for group in state_dict["param_groups"]]
        own = [len(group["params"]) for group in self.param_groups]
        if saved != own:
            raise ValueError(f"The optimizer has groups of {own} parameters, but the state dict has {saved}.")
        for name in ("amsgrad", "maximize"):
            if any(group.get(name) for group in state_dict["param_groups"]):
                raise ValueError(f"{type(self).__name__} cannot go on with a state dict that has {name}=True.")
        state = _entries(state_dict)
        if foreign := state.keys() - set(range(sum(own))):
            raise ValueError(f"The optimizer has {sum(own)} parameters, but the state dict has numbers {foreign}.")
        number = itertools.count()
        for group, theirs in zip(self.param_groups, state_dict["param_groups"]):
            wanted = set(self.state_names({**group, **theirs}))
            for parameter, i in zip(group["params"], number):
                given = state.get(i, {}).keys() - {"step"}
                if i in state and given != wanted:
                    raise ValueError(
                        f"{type(self).__name__} keeps {sorted(wanted)} for each parameter, but the state dict has "
                        f"{sorted(given)} for number {i}. Is it of another optimizer?"
                    )
                for name in given:
                    if np.shape(state[i][name]) != parameter.shape:
                        raise ValueError(
                            f"Parameter {i} has shape {parameter.shape}, but its {name} has {np.shape(state[i][name])}."
                        )

    def load_state_dict(self, state_dict):
        """Take over the state and settings of `state_dict`, ours or PyTorch's with arrays for tensors.

        Raises ValueError, and changes nothing, where it is of other parameters or of another optimizer.
        """
        self.check_state_dict(state_dict)
        state, number = _entries(state_dict), itertools.count()
        for group, theirs, flats in zip(self.param_groups, state_dict["param_groups"], self._flats):
            group.update({name: value for name, value in theirs.items() if name != "params"})
            numbers = {parameter: next(number) for parameter in group["params"]}
            for flat in flats:
                flat.state.clear()
                for i, parameter in enumerate(flat.parameters):
                    entries = dict(state.get(numbers[parameter], {}))
                    flat.steps[i] = int(entries.pop("step", bool(entries)))  # PyTorch's SGD keeps no count
                    for name, value in entries.items():
                        value = devices.to_device(devices.to_numpy(value), parameter.device)
                        flat.buffer(name)[flat.starts[i] : flat.ends[i]] = value.reshape(-1)


def _entries(state_dict):
    """{number: {name: array}} without the entries that PyTorch leaves as None."""
    return {
        int(number): {name: value for name, value in entries.items() if value is not None}
        for number, entries in state_dict["state"].items()
    }


def _by_kind(parameters):
    """One buffer for each dtype and device among the parameters."""
    kinds = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    return [FlatParameters(same) for same in kinds.values()]
