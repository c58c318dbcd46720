"""Optimizers: PyTorch loads what does not fit them without a word, so everything is compared here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from stopctl.ports import Leaf, Sharded, Tree
from stopctl_torch.leaves import TENSORS, Encoder, decode
from stopctl_torch.parts import KeyedPart, Keys, check_class, kind_of
from stopctl_torch.sharding import sharded

Names = Callable[[], Mapping[int, str]]

# written into the groups by schedulers or by torch itself: they come and go with those
SCHEDULED = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr", "param_names"}

ONE_NUMBER = {"step", "mu", "eta", "mu_product"}
"""State that is one number a parameter, never sharded; a parameter may be one number itself."""


class OptimizerPart(KeyedPart):
    """The moments, steps and groups of an optimizer, with the names of the parameters they belong to.

    ``names`` gives what each parameter is called, by its id.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, names: Names) -> None:
        self._optimizer = optimizer
        self._names = names

    def capture(self, encode: Encoder, path: str) -> Tree:
        """``{"class": ..., "params": names by group, "state": the encoded state dict}``."""
        state = encode(self._optimizer.state_dict(), f"{path}/state")
        return {"class": kind_of(self._optimizer), "params": self._params(), "state": state}

    def check(self, saved: Tree, path: str) -> list[str]:
        """Class, groups, and parameters by name, shape and dtype."""
        lines = check_class(saved, self._optimizer, path, dict)
        if lines:
            return lines
        params, given = saved.get("params", []), self._params()
        if len(params) != len(given):
            return [f"{path}: saved {len(params)} parameter groups, given {len(given)}"]
        lines = [f"{path}/state/{each}" for each in self._places(saved["state"])[1]]
        groups = saved["state"].get("param_groups", [{}] * len(given))
        for i, live in enumerate(self._optimizer.state_dict().get("param_groups", groups)):
            lines += _check_params(params[i], given[i], f"{path} group {i}")
            if "params" in live and "params" not in groups[i]:
                lines.append(f"{path} group {i}: 'params' given, but not saved")
        return lines

    def keys(self, saved: Tree, path: str) -> Keys:
        """Those that any of the groups gained or lost, but for what schedulers write there."""
        groups = list(self._groups(saved["state"]))
        ours = {key for group, live, _ in groups for key in group.keys() - live.keys() - SCHEDULED}
        theirs = {key for group, live, _ in groups for key in live.keys() - group.keys() - SCHEDULED}
        return Keys(*([f"{key!r} of {path}" for key in sorted(keys, key=str)] for keys in (ours, theirs)))

    def load(self, saved: Tree) -> None:
        """Take over groups and state, tensors in the dtype they were saved in."""
        state = decode(saved["state"], like=self._places(saved["state"])[0])
        for group, live, _ in self._groups(state):
            if live.keys() - group.keys():  # load_state_dict() would drop those
                whole = {**live, **group}
                group.clear()
                group.update(whole)
        self._optimizer.load_state_dict(state)
        self._undo_casts(state.get("state", {}))

    def drop(self, saved: Tree) -> None:
        """Out of the groups."""
        for group, shown, live in self._groups(saved["state"]):
            for key in shown.keys() - group.keys():
                del live[key]

    def _groups(
        self, saved: dict[str, Any]
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
        """Each group: as saved, as the optimizer's ``state_dict()`` shows it, and the live one."""
        given = self._optimizer.state_dict().get("param_groups", ())
        return zip(saved.get("param_groups", ()), given, self._optimizer.param_groups, strict=False)

    def _places(self, saved: Tree) -> tuple[dict[str, Any], list[str]]:
        """Tensors that are placed as the saved ones shall be, and in words those that none is known for.

        What has one number for each of a sharded parameter's is sharded as that is, all else as it is now.
        """
        live = self._optimizer.state_dict()
        state, unknown = dict(live.get("state", {})), []
        params = (p for group in self._optimizer.param_groups for p in group["params"])
        for i, param in sharded(dict(enumerate(params))).items():
            values = saved.get("state", {}).get(i)
            if not isinstance(values, dict):
                continue
            state[i] = here = dict(state.get(i, {}))
            for key, value in values.items():
                if not isinstance(value, Leaf | Sharded):
                    continue
                if _is_beside(key, value, param):
                    here[key] = param
                elif value.shape and tuple(getattr(here.get(key), "shape", ())) != value.shape:
                    unknown.append(
                        f"{i}/{key}: saved {value.dtype} {value.shape}, for which a fresh optimizer has no "
                        "place where the parameter is sharded: let it do a step before the run is opened"
                    )
        return {**live, "state": state}, unknown

    def _params(self) -> list[list[str]]:
        names = self._names()
        return [[_describe(p, names) for p in group["params"]] for group in self._optimizer.param_groups]

    def _undo_casts(self, saved: Mapping[Any, Any]) -> None:
        """load_state_dict() casts floats to their parameter's dtype and garbles strings: put them right."""
        params = [p for group in self._optimizer.param_groups for p in group["params"]]
        for i, values in saved.items():
            if not isinstance(values, dict) or i not in range(len(params)):
                continue
            live = self._optimizer.state[params[i]]
            for key, value in values.items():
                if isinstance(value, str | bytes):
                    live[key] = value
                elif isinstance(value, torch.Tensor) and value.dtype != live[key].dtype:
                    live[key] = value.to(live[key].device)


def _is_beside(key: str, saved: Leaf | Sharded, param: torch.Tensor) -> bool:
    """Whether a saved value is one number for each of the parameter's."""
    return saved.shape == tuple(param.shape) and (key not in ONE_NUMBER or isinstance(saved, Sharded))


def _describe(param: torch.Tensor, names: Mapping[int, str]) -> str:
    dtype = TENSORS.get(param.dtype, str(param.dtype))
    shape = "(not built)" if torch.nn.parameter.is_lazy(param) else tuple(param.shape)
    return f"{names.get(id(param), '(not in a model)')} {dtype} {shape}"


def _check_params(saved: list[str], given: list[str], where: str) -> list[str]:
    if len(saved) != len(given):
        return [f"{where}: saved {len(saved)} parameters, given {len(given)}"]
    pairs = enumerate(zip(saved, given, strict=True))
    return [f"{where}, parameter {i}: saved {a}, given {b}" for i, (a, b) in pairs if a != b]
