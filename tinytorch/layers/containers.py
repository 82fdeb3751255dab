"""Modules that hold others in a row."""

from .module import Module


class ModuleList(Module):
    """Modules in a list, found by `parameters()`; keys are their positions."""

    def __init__(self, modules=()):
        for module in modules:
            self.append(module)

    def append(self, module):
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} holds modules, but got {module!r}. Write, for example, ReLU().")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self):
        return sum(1 for _ in self.named_children())

    def __iter__(self):
        return (child for _, child in self.named_children())

    def __getitem__(self, index):
        """One module, or for a slice a container of the same kind."""
        modules = list(self)
        return self.of(modules[index]) if isinstance(index, slice) else modules[index]

    @classmethod
    def of(cls, modules):
        return cls(modules)


class Sequential(ModuleList):
    """Modules applied one after another: Sequential(Linear(2, 4), ReLU(), Linear(4, 1))."""

    def __init__(self, *modules):
        super().__init__(modules)

    @classmethod
    def of(cls, modules):
        return cls(*modules)

    def forward(self, x):
        """Give x to the first module, what it returns to the next, and so on; return what comes out of the last."""
        for module in self:
            x = module(x)
        return x
