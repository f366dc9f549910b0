"""How the operator's library is registered, where ONNX Runtime's own calls fail: a table of functions in its place."""

from __future__ import annotations

import ctypes
import re
import shutil

import pytest

from ceilings.kernels import onnxruntime_attention

if shutil.which("cc") is None:
    pytest.skip("there is no C compiler", allow_module_level=True)

ABI = (onnxruntime_attention.SOURCE.parent / "onnxruntime_abi.h").read_text()
PLACES = {name: int(place) for name, place in re.findall(r"ENTRY\((\w+), (\d+),", ABI)}
SIZE = int(re.search(r"ABI_PLACES = (\d+)", ABI)[1])
ADDRESS, FAILED = ctypes.c_void_p, 7


class Double:
    """The entries of the table that a registration calls. ``failing``: that of ``CustomOpDomain_Add`` which fails."""

    def __init__(self, failing: int) -> None:
        self.failing, self.domains, self.given = failing, {}, []
        of = {
            "CreateCustomOpDomain": (self.create, [ADDRESS, ctypes.POINTER(ADDRESS)]),
            "CustomOpDomain_Add": (self.add, [ADDRESS, ADDRESS]),
            "AddCustomOpDomain": (self.give, [ADDRESS, ADDRESS]),
            "ReleaseCustomOpDomain": (self.release, [ADDRESS]),
        }
        self.kept = {name: ctypes.CFUNCTYPE(ADDRESS, *takes)(call) for name, (call, takes) in of.items()}
        self.table = (ADDRESS * SIZE)()
        for name, call in self.kept.items():
            self.table[PLACES[name]] = ctypes.cast(call, ADDRESS).value
        self.api = ctypes.CFUNCTYPE(ADDRESS, ctypes.c_uint32)(lambda _: ctypes.addressof(self.table))
        self.base = (ADDRESS * 2)(ctypes.cast(self.api, ADDRESS).value, None)

    def create(self, _, made):
        number = 1 + len(self.domains)
        made[0], self.domains[number] = number, 0

    def add(self, domain, _):
        self.failing -= 1
        if not self.failing:
            return FAILED
        self.domains[domain] += 1
        return None

    def give(self, _, domain):
        self.given.append(domain)

    def release(self, domain):
        self.domains[domain] = None


@pytest.mark.parametrize("failing", [1, 2])
def test_a_domain_that_lacks_an_operator_is_given_to_no_session(tmp_path, failing):
    onnxruntime_attention.compile_library(tmp_path / "attention.so", [])
    register = ctypes.CDLL(str(tmp_path / "attention.so")).RegisterCustomOps
    register.restype, register.argtypes = ADDRESS, [ADDRESS, ADDRESS]
    double = Double(failing)
    found = [register(1, ctypes.addressof(double.base)) for _ in range(3)]
    assert found == [FAILED, None, None]
    assert double.domains == {1: None, 2: 2} and double.given == [2, 2]
