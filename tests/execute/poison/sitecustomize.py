"""Checkpoints that do to a process what no checkpoint should: for tests, in every process.

A file `poison` in the run names steps: "200:segv 450:hang". Python imports this module at its
start wherever its folder is on PYTHONPATH; the test's own process calls `poison` itself.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time

TARGET = "ndt_offline.replay.block"


def suffer(kind: str) -> None:
    if kind == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "hang":
        time.sleep(600)
    elif kind == "bomb":
        bytearray(2**46)
    elif kind == "slow":
        time.sleep(0.03)


def poison(runner: type) -> None:
    """Have a BlockRunner suffer what its run says."""
    plain = runner._one  # type: ignore[attr-defined]

    def _one(self, decoder, block, row, needs):  # type: ignore[no-untyped-def]
        file = self._run.path / "poison"
        if file.exists():
            chosen = dict(pair.split(":") for pair in file.read_text().split())
            kind = chosen.get(str(block.entries[row - block.start].step), chosen.get("all"))
            if kind == "bomb":
                decoder = Bomb()
            elif kind:
                suffer(kind)
        return plain(self, decoder, block, row, needs)

    runner._one = _one  # type: ignore[attr-defined]


class Bomb:
    def read(self, entry: object) -> None:
        suffer("bomb")


class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module):  # type: ignore[no-untyped-def]
            run(module)
            poison(module.BlockRunner)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if TARGET not in sys.modules:
    sys.meta_path.insert(0, Hook())
