"""A student's function put into the framework that is already running.

The function that is there keeps its identity and gets the new one's code, so that whoever imported it, and every
operation lifted by a decorator, runs the new one from then on.
"""

import ast
import importlib
import inspect
import linecache
import types

from . import answers

CARRIED = ("__code__", "__defaults__", "__kwdefaults__", "__doc__", "__annotations__")


def module_of(exercise):
    """The running module in which the exercise's target is."""
    name = exercise.file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    return importlib.import_module(name)


def install(exercise, answer):
    """Make `answer` what runs. Returns the function or class, with its decorators, as it is called from outside.

    Raises what the text itself raises when it is defined.
    """
    module, owner = module_of(exercise), None
    if "." in exercise.qualname:
        owner = getattr(module, exercise.qualname.rpartition(".")[0])
    if answer.helpers:
        exec(compile(answer.helpers, f"<helpers of {exercise.id}>", "exec"), vars(module))
    new = _defined(exercise, answer, module, owner)
    space = vars(owner or module)
    old = space[exercise.name]
    if isinstance(new, type):
        _adopt_class(old, new)
    elif not _adopt(_innermost(old), new):
        setattr(owner, exercise.name, type(old)(new) if isinstance(old, (classmethod, staticmethod)) else new)
    return getattr(owner or module, exercise.name)


def _defined(exercise, answer, module, owner):
    """The function or class of the text, defined among the names of its file."""
    filename = f"<{exercise.id}, {answer.version}>"
    tree = answers.parse(answer.text, exercise.id)
    tree.body[0].decorator_list.clear()
    if owner is not None:  # defined inside a class, so that super() works; its cell is then pointed at the real one
        [inside] = ast.parse(f"class {owner.__name__}: pass").body
        inside.body, tree.body = tree.body, [inside]
    # tracebacks show its lines
    linecache.cache[filename] = len(answer.text), None, answer.text.splitlines(keepends=True), filename
    space = {}
    exec(compile(tree, filename, "exec"), vars(module), space)
    if owner is None:
        return space[exercise.name]
    function = vars(space[owner.__name__])[exercise.name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        if name == "__class__":
            cell.cell_contents = owner
    function.__qualname__ = exercise.qualname
    return function


def _innermost(function):
    """The function that a student writes, below its decorators."""
    if isinstance(function, (classmethod, staticmethod)):
        function = function.__func__
    elif isinstance(function, property):
        function = function.fget
    return inspect.unwrap(function)


def _adopt(old, new):
    """Give a function another one's code. False where Python cannot: where only one of them uses super()."""
    if not isinstance(old, types.FunctionType) or old.__code__.co_freevars != new.__code__.co_freevars:
        return False
    for name in CARRIED:
        setattr(old, name, getattr(new, name))
    return True


def _adopt_class(old, new):
    """Give a class another one's attributes; instances of it keep their class."""
    own = {"__dict__", "__weakref__", "__module__"}
    for name in set(vars(old)) - set(vars(new)) - own:
        delattr(old, name)
    for name in set(vars(new)) - own:
        setattr(old, name, vars(new)[name])
