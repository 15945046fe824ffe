"""After an examination, everything of the reader's is as it was before."""

import gc
import random
import sys
import types
from argparse import Namespace
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from annotated_transformer.doctor.patient import Patient

DEPTH = 3  # so many objects or functions beyond a module or a part of the patient
LONG = 10_000  # a longer list is data: its items are not looked at
FOREIGN = sys.stdlib_module_names | {"torch", "numpy"}  # whose objects are left alone
LIVING: ContextVar[list[Any] | None] = ContextVar("living", default=None)
PLAIN = (Optimizer, LRScheduler, torch.amp.GradScaler, types.SimpleNamespace, Namespace)


@contextmanager
def unchanged(patient: Patient) -> Iterator[None]:
    """Put everything back afterwards, also after an exception or Ctrl-C.

    Weights and buffers (bit for bit, in the same memory), gradients, modes, hooks,
    attributes, random states, and whatever the optimizer, its schedules and the given
    functions hold, as far as it can be found. Tensors are cloned once; models are not
    copied. Within another `unchanged`, the optimizers found before are taken.
    """
    parts = {k: v for k, v in vars(patient).items() if k not in ("tokenizer", "texts")}
    with ExitStack() as undo:
        keep_settings(undo)
        keeper = Keeper(undo)
        keeper.keep(parts.values())
        living = LIVING.get() or trainers(keeper.seen)
        undo.callback(LIVING.reset, LIVING.set(living))
        keeper.keep(living)
        hook = register_optimizer_step_pre_hook(lambda it, *_: keeper.keep([it]))
        undo.callback(hook.remove)
        yield


def keep_settings(undo: ExitStack) -> None:
    """Keep random states and PyTorch's settings."""
    undo.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        undo.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    undo.callback(np.random.set_state, np.random.get_state())
    undo.callback(random.setstate, random.getstate())
    undo.callback(torch.set_grad_enabled, torch.is_grad_enabled())
    undo.callback(torch.set_default_dtype, torch.get_default_dtype())
    undo.callback(torch.set_num_threads, torch.get_num_threads())


def families(kind: Any) -> list[Any]:
    """A class and all that inherit from it."""
    return [kind, *(k for below in kind.__subclasses__() for k in families(below))]


def trainers(found: dict[int, Any]) -> list[Any]:
    """Living optimizers of tensors already found, and the schedules of those."""
    kinds = {*families(Optimizer), *families(LRScheduler)}
    living = [thing for thing in gc.get_objects() if type(thing) in kinds]
    optimizers = [
        thing
        for thing in living
        if isinstance(thing, Optimizer)
        and any(id(p) in found for g in thing.param_groups for p in g["params"])
    ]
    known = {*found, *map(id, optimizers)}
    schedules = [thing for thing in living if isinstance(thing, LRScheduler)]
    return optimizers + [s for s in schedules if id(s.optimizer) in known]


class Keeper:
    """Walks from thing to thing, and notes how to put back each that can change."""

    def __init__(self, undo: ExitStack):
        self.undo = undo
        self.seen: dict[int, Any] = {}  # the things, too, so that no id is used again
        self.storages: set[int] = set()

    def keep(self, things: Iterable[Any]) -> None:
        """Keep these and what can be reached from them."""
        todo = deque((thing, DEPTH) for thing in things)
        while todo:
            thing, depth = todo.popleft()
            if depth < 0 or id(thing) in self.seen:
                continue
            self.seen[id(thing)] = thing
            if isinstance(thing, Tensor):
                parts = self.tensor(thing)
            elif isinstance(thing, dict | list | set | deque | tuple):
                parts = self.container(thing)
            elif isinstance(thing, types.FunctionType):
                parts, depth = self.function(thing), depth - 1
            elif isinstance(thing, nn.Module):
                parts, depth = [*self.attributes(thing), *thing.parameters()], DEPTH
            else:
                parts, depth = self.thing(thing), depth - 1
            todo.extend((part, depth) for part in parts)

    def tensor(self, tensor: Tensor) -> list[Any]:
        """Keep a tensor's memory, and its gradient, which is a tensor of its own."""
        if tensor.layout != torch.strided or tensor.is_meta or is_lazy(tensor):
            return []
        before = tensor.detach()  # the same memory
        storage = before.untyped_storage()
        if storage.data_ptr() not in self.storages:
            self.storages.add(storage.data_ptr())
            self.undo.callback(storage.copy_, storage.clone())
        grad = tensor.grad if tensor.is_leaf else None
        hooks = dict(tensor._backward_hooks or {})
        self.undo.callback(put_back, tensor, before, tensor.requires_grad, grad, hooks)
        return [grad]

    def container(self, items: Any) -> list[Any]:
        """Keep what a container holds; the container itself stays the same one."""
        if isinstance(items, dict):
            kind: Any = OrderedDict if isinstance(items, OrderedDict) else dict
            self.undo.callback(kind.update, items, kind(items))
            self.undo.callback(kind.clear, items)
            held = list(items.values())
        else:
            held = list(items)
            if isinstance(items, list):
                self.undo.callback(list.__setitem__, items, slice(None), held)
            elif isinstance(items, set | deque):
                fill = items.update if isinstance(items, set) else items.extend
                self.undo.callback(fill, held)
                self.undo.callback(items.clear)
        return held if len(held) <= LONG else []

    def attributes(self, thing: Any) -> list[Any]:
        """Keep an object's attributes."""
        return self.container(vars(thing))

    def function(self, function: types.FunctionType) -> list[Any]:
        """Keep the variables that a function takes from outside, and may set there."""
        cells = [cell for cell in function.__closure__ or () if filled(cell)]
        for cell in cells:
            self.undo.callback(setattr, cell, "cell_contents", cell.cell_contents)
        parts = [cell.cell_contents for cell in cells]
        parts += [function.__defaults__, function.__kwdefaults__, vars(function)]
        if top(function) not in FOREIGN:
            space = function.__globals__
            for name in names(function.__code__):
                if name in space:
                    self.undo.callback(space.__setitem__, name, space[name])
                    parts.append(space[name])
                elif not name.startswith("__"):
                    self.undo.callback(space.pop, name, None)
        return parts

    def thing(self, thing: Any) -> list[Any]:
        """Keep a source of randomness, an array, a call, or an object's attributes."""
        if isinstance(thing, types.MethodType):
            return [thing.__self__, thing.__func__]
        if isinstance(thing, partial):
            return [thing.func, thing.args, thing.keywords]
        if isinstance(thing, np.ndarray):
            if thing.flags.writeable and not thing.dtype.hasobject:
                self.undo.callback(np.copyto, thing, thing.copy())
        elif isinstance(thing, torch.Generator):
            self.undo.callback(thing.set_state, thing.get_state())
        elif isinstance(thing, random.Random):
            self.undo.callback(thing.setstate, thing.getstate())
        elif isinstance(thing, np.random.Generator):
            bits = thing.bit_generator
            self.undo.callback(setattr, bits, "state", bits.state)
        elif isinstance(thing, PLAIN) or (
            hasattr(thing, "__dict__")
            and not isinstance(thing, type | types.ModuleType)
            and top(type(thing)) not in FOREIGN
        ):
            call = [type(thing).__call__] if callable(thing) else []
            return [*self.attributes(thing), *call]
        return []


def put_back(
    tensor: Tensor,
    before: Tensor,
    requires_grad: bool,
    grad: Tensor | None,
    hooks: dict[int, Any],
) -> None:
    """Give a tensor its memory again, if it got another, and its gradient."""
    if tensor.is_leaf:
        tensor.grad = None  # of any shape and dtype
    if (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) != (
        before.data_ptr(),
        before.dtype,
        before.shape,
        before.stride(),
    ):
        tensor.data = before
    if tensor.is_leaf:
        tensor.requires_grad_(requires_grad)
        tensor.grad = grad
    if tensor._backward_hooks is not None:
        tensor._backward_hooks.clear()
        tensor._backward_hooks.update(hooks)


def filled(cell: types.CellType) -> bool:
    """Whether a variable of a closure has a value yet."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def names(code: types.CodeType) -> set[str]:
    """Names that code, and code within it, takes from outside."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*map(names, inner))


def top(definition: Any) -> str:
    """The package that a function or class comes from."""
    return str(getattr(definition, "__module__", "")).partition(".")[0]
