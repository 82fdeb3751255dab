"""What autograd recorded behind a tensor, and how a large recording is folded into few boxes.

Nothing is noted down for pictures while a model runs. Which module an operation ran in is worked out afterwards, from
the parameters that it took and from the moment at which it ran: a module's operations follow each other in time.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from ..autograd import Node
from ..layers import Module, ModuleList, Parameter
from ..tensor import Tensor


class Recording:
    """The operations behind a tensor, oldest first; what each one took, the shape it made, and the leaves."""

    def __init__(self, output):
        if not isinstance(output, Tensor):
            raise TypeError(f"draw_graph needs a tensor, but got {type(output).__name__}. Pass the loss or an output.")
        if output.grad_fn is None:
            raise RuntimeError(
                "draw_graph needs a tensor that was computed, and this one has no graph: nothing that it was computed "
                "from has requires_grad=True, or it was computed inside no_grad(), or it is a leaf itself."
            )
        self.shapes = {output.grad_fn: output.shape}
        self.inputs = {}
        waiting = [output.grad_fn]
        while waiting:
            node = waiting.pop()
            if node.freed:
                raise RuntimeError(
                    f"draw_graph came too late: backward() has freed the graph from '{node.name}' on. Draw it before "
                    "backward(), or, to see the gradients, after backward(retain_graph=True)."
                )
            edges = [edge for edge in node.inputs if edge is not None]
            self.inputs[node] = [source for source, _, _ in edges]
            for source, shape, _ in edges:
                if isinstance(source, Node) and source not in self.shapes:
                    self.shapes[source] = shape
                    waiting.append(source)
        self.operations = sorted(self.inputs, key=lambda node: node.time)
        self.users = defaultdict(list)
        for node in self.operations:
            for source in self.inputs[node]:
                self.users[source].append(node)
        self.leaves = [source for source in self.users if not isinstance(source, Node)]


class Names:
    """The names of tensors, and where parameters live, from `{name: tensor or module}` or from one module."""

    def __init__(self, names):
        self.tensors = {}  # tensor -> its first name
        self.homes = defaultdict(list)  # parameter -> the path of each module that holds it
        self.modules = {}  # name -> module
        if names is None:
            return
        if isinstance(names, Module):
            names = {"": names}
        if not isinstance(names, dict):
            raise TypeError(f"names needs a dict {{name: tensor}} or a Module, but got {type(names).__name__}.")
        for name, value in names.items():
            if isinstance(value, Module):
                self._add_module(str(name), value)
            elif isinstance(value, Tensor):
                self.tensors.setdefault(value, str(name))
            else:
                raise TypeError(
                    f"names needs tensors or modules as values, but {name!r} is {type(value).__name__}. "
                    "Write {'weight': weight}, the name first."
                )

    def _add_module(self, prefix, root):
        def full(name):
            return ".".join(part for part in (prefix, name) if part)

        for found in (root.named_parameters(), root.named_buffers()):
            for name, tensor in found:
                self.tensors.setdefault(tensor, full(name))
        paths = {}
        for name, module in root.named_modules():
            path = paths.get(name.rpartition(".")[0], ())  # of the module around it, which comes first
            if full(name) and type(module) is not ModuleList:  # a plain list computes nothing: its items count
                path = path + (full(name),)
            paths[name] = path
            self.modules[full(name)] = module
            for value in vars(module).values():
                if isinstance(value, Parameter):
                    self.homes[value].append(path)

    def is_innermost(self, name):
        return not any(True for _ in self.modules[name].named_children())


@dataclass
class Group:
    """Operations that share one box, oldest first, and the names of the modules that they ran in, if known."""

    operations: list
    modules: tuple = ()


def fold(recording, names, limit, shown):
    """(groups, held): the finest division of the operations that is drawn with at most `limit` boxes.

    `groups` is in an order in which no group feeds an earlier one; `held` maps a leaf that gets no box of its own to
    the group that holds it. Leaves in `shown` always get theirs.

    Tried in turn: every operation alone; a box for each innermost module, then for the modules around them, out to
    the outermost; chains of single operations as one box each; what is left cut into equal parts.
    """
    for groups, hold in _divisions(recording, names):
        held = hold(recording, names, groups, shown)
        if len(groups) + len(recording.leaves) - len(held) < limit:  # one box is left for the output
            return groups, held
    groups = _equal_parts(groups, max(1, limit - 1 - len(shown)))
    return groups, _hold_all(recording, names, groups, shown)


def _divisions(recording, names):
    groups = [Group([node]) for node in recording.operations]
    yield groups, _hold_parameters
    paths = _module_paths(recording, names)
    for depth in range(max(map(len, paths.values())), 0, -1):
        groups = _by_module(recording, names, paths, depth)
        yield groups, _hold_parameters
    groups = _by_chain(recording, groups)
    yield groups, _hold_parameters
    yield groups, _hold_own


# ---- which module an operation ran in


def _module_paths(recording, names):
    """For each operation the names of the modules around it, outermost first.

    An operation that takes a parameter ran in the module that holds it. Any other ran in the innermost module around
    both the last such operation before it and the first one after it; or, if that is further in, around all operations
    whose results it brings together (the sum that ends a residual block comes after the block's last parameter).
    """
    operations = recording.operations
    known, again = _paths_of_parameters(recording, names)
    following, after = None, {}
    for node in reversed(operations):
        after[node] = following
        if node in known:  # a module that takes a parameter again was left before
            following = known[node][:-1] if node in again else known[node]
    before, paths = None, {}
    for node in operations:
        if node in known:
            before = paths[node] = known[node]
            continue
        around = [path for path in (before, after[node]) if path is not None]
        between = _common(around) if len(around) == 2 else ()
        sources = {source for source in recording.inputs[node] if isinstance(source, Node)}
        joined = _common([paths[source] for source in sources]) if len(sources) > 1 else ()
        paths[node] = max(between, joined, key=len)
    return paths


def _paths_of_parameters(recording, names):
    """For operations that take parameters, their paths; and those among them that take one which was taken before."""
    known, again, uses = {}, set(), Counter()
    for node in recording.operations:
        found = []
        for source in recording.inputs[node]:
            homes = names.homes.get(source)
            if homes:  # where two modules share a parameter, they are taken to run in turn
                found.append(homes[uses[source] % len(homes)])
                if uses[source] >= len(homes):
                    again.add(node)
                uses[source] += 1
        if found:
            known[node] = max(found, key=len)
    return known, again


def _common(paths):
    shared = min(paths, key=len)
    while any(path[: len(shared)] != shared for path in paths):
        shared = shared[:-1]
    return shared


# ---- divisions. A group is a stretch of operations that ran one after the other, or a chain of which only the ends
# ---- have other neighbours: so groups never feed each other in a circle, and their first operations put them in order.
# ---- A module that runs twice, with others between, gets two boxes.


def _by_module(recording, names, paths, depth):
    groups = []
    for node in recording.operations:
        path = paths[node]
        whole = len(path) >= depth or (path and names.is_innermost(path[-1]))
        modules = path[:depth][-1:] if whole else ()
        if modules and groups and groups[-1].modules == modules:
            groups[-1].operations.append(node)
        else:
            groups.append(Group([node], modules))
    return groups


def _by_chain(recording, groups):
    """Join each operation outside of modules to the one before, where neither has another neighbour."""
    chains, chain_of = [], {}
    for group in groups:
        node = group.operations[0]
        sources = {source for source in recording.inputs[node] if isinstance(source, Node)}
        source = sources.pop() if len(sources) == 1 else None
        if not group.modules and source in chain_of and len(set(recording.users[source])) == 1:
            chain = chain_of[source]
            chain.operations.append(node)
        else:
            chain = Group(list(group.operations), group.modules)
            chains.append(chain)
        if not chain.modules:
            chain_of[node] = chain
    return chains


def _equal_parts(groups, count):
    size = math.ceil(len(groups) / count)
    parts = []
    for start in range(0, len(groups), size):
        part = groups[start : start + size]
        operations = [node for group in part for node in group.operations]
        modules = dict.fromkeys(name for group in part for name in group.modules)
        parts.append(Group(operations, tuple(modules)))
    return parts


# ---- leaves without a box: a leaf is held by the group that uses it first


def _users(recording, groups, leaves):
    group_of = {node: group for group in groups for node in group.operations}
    for leaf in leaves:
        yield leaf, [group_of[node] for node in recording.users[leaf]]


def _drawable(recording, shown):
    return [leaf for leaf in recording.leaves if leaf not in shown]


def _hold_parameters(recording, names, groups, shown):
    """Parameters that only their own module uses, however often it runs, are held by its box."""
    held = {}
    for leaf, users in _users(recording, groups, _drawable(recording, shown)):
        modules = {group.modules for group in users}
        if len(modules) == 1 and any(set(path) & set(users[0].modules) for path in names.homes.get(leaf, ())):
            held[leaf] = users[0]
    return held


def _hold_own(recording, names, groups, shown):
    """Also leaves that only one chain of operations uses."""
    held = _hold_parameters(recording, names, groups, shown)
    for leaf, users in _users(recording, groups, _drawable(recording, shown)):
        if all(group is users[0] for group in users) and len(users[0].operations) > 1:
            held[leaf] = users[0]
    return held


def _hold_all(recording, names, groups, shown):
    return {leaf: users[0] for leaf, users in _users(recording, groups, _drawable(recording, shown))}
