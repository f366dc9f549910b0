"""What the kernels are for a Hopper GPU, as Triton and its assembler make them for compute capability 9.0."""

import dataclasses
import functools
import os
import re
import subprocess
import tempfile
from collections import defaultdict
from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="triton is not installed: make kernels")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from unit.kernels import families, tuner

from ceilings.kernels import decoder_tiles, encoder_weights, fp8_weights, plain_decoder, product, resources
from ceilings.kernels.decoder import Decoder
from ceilings.kernels.encoder import Encoder
from ceilings.kernels.persistent import STEPS, PersistentEncoder
from ceilings.kernels.tiles import PERSISTENT, ProductTile, ProjectionTile, Tiles, defaults

CONSTANT = {"weight", "scale", "bias", "gain", "offset", "positions"}
"""Operands that no kernel writes."""

PRODUCTS = {"qkv", "out", "up", "down", "head"}

WEIGHTED = PRODUCTS | {"projection"}
"""Steps that have a weight matrix."""

PRECISIONS = ("fp16", "fp8")


@functools.cache
def weights(precision):
    """Of a layer as large as BERT-base's: smaller ones leave a pipeline nothing to do."""
    made = encoder_weights.of(families.encoder("bert-base layer"))
    return fp8_weights.quantised(made) if precision == "fp8" else made


def launches(tiles=None, batch=1, precision="fp16", **options):
    cut = tiles or defaults(batch * 128, precision)
    made = Encoder(weights(precision), batch, 128, cut, **options).launches(*families.request(batch, 128))
    return {launch.step: launch for launch in made}.values()


def addressed(ptx, names):
    """(instruction, operands of the kernel that its address follows from) of what reaches memory, in order."""
    follows, found = {}, []
    for line in ptx.splitlines():
        words = re.findall(r"%\w+|\w+_param_\d+", line)
        if loads := re.search(r"ld\.param\.b64 \s*(%rd\d+), \[\w+_param_(\d+)\]", line):
            follows[loads[1]] = {names[int(loads[2])]} if int(loads[2]) < len(names) else set()
        elif reached := re.search(r"(ld\.global|st\.global|cp\.async\.c[ag]|prefetch\.global)[^\[]*(\[.*)", line):
            addresses = re.findall(r"%rd\d+", reached[2])
            found.append((reached[1], set().union(*(follows.get(one, set()) for one in addresses[-1:]))))
        elif words:
            follows[words[0]] = set().union(
                *(follows.get(one, set()) for one in words[1:]), follows.get(words[0], set())
            )
    return found


OVERLAPPED = {
    f"{precision} {launch.step}": launch
    for precision in PRECISIONS
    for launch in launches(precision=precision, overlapped=True)
}
OVERLAPPED |= {
    f"projected {launch.step}": launch
    for launch in launches(overlapped=True, projected=True)
    if launch.step in ("projection", "norm")
}


@pytest.mark.parametrize("launch", OVERLAPPED.values(), ids=OVERLAPPED)
def test_before_it_waits_a_kernel_reaches_for_weights_alone(launch):
    names = [name for name, value in launch.arguments.items() if hasattr(value, "data_ptr")]
    before, wait, after = resources.compile_for(launch, 90).asm["ptx"].partition("griddepcontrol.wait")
    assert wait and "griddepcontrol.launch_dependents" in after
    early = addressed(before, names)
    assert {kind for kind, _ in early} <= {"ld.global", "prefetch.global"}
    assert all(operands and operands <= CONSTANT for _, operands in early), early
    assert (("prefetch.global", {"weight"}) in early) == (launch.step in WEIGHTED)
    late = addressed(before + after, names)[len(early) :]
    assert {kind for kind, _ in late} & {"st.global"} and set().union(*(one for _, one in late)) - CONSTANT


def test_kernels_that_do_not_overlap_wait_for_nothing():
    for launch in launches(overlapped=False):
        assert not re.search("griddepcontrol|prefetch", resources.compile_for(launch, 90).asm["ptx"]), launch.step


@pytest.mark.parametrize(("precision", "projected"), [("fp16", False), ("fp16", True), ("fp8", False)])
@pytest.mark.parametrize("batch", [1, 32])
def test_the_defaults_fit_a_hopper_multiprocessor(batch, precision, projected):
    for launch in launches(batch=batch, precision=precision, overlapped=True, projected=projected):
        taken = resources.resources(launch)
        assert taken.fits(90), f"{launch.step}: {taken}"
        assert (taken.instructions != "") == (launch.step in WEIGHTED | {"attention"}), launch.step
        assert launch.registers is None or taken.registers <= launch.registers, launch.step


@pytest.mark.parametrize("sums", [2, 4, 6, 12])
def test_a_normalisation_asks_for_all_partial_sums_before_it_adds_any(sums):
    """In the machine code: 768 columns by 128 threads are two loads a sum, and one for the residual."""
    cut = dataclasses.replace(Tiles(), projection=ProjectionTile(64, 128, 128, heads=12 // sums))
    norm = next(one for one in launches(cut, overlapped=True, projected=True) if one.step == "norm")
    loads, saved = (loads_before_a_sum(one) for one in (norm, dataclasses.replace(norm, registers=None)))
    assert loads == 2 * sums + 1 and saved < loads, "the assembler alone saves registers, and asks for few at a time"


@pytest.mark.parametrize("columns", [64, 128, 256])
def test_attention_with_its_projection_asks_for_all_operands_of_a_head_at_once(columns):
    """By 128 threads, 16 bytes each: queries 4, keys and values 8 each, the weight by its columns, and the mask."""
    cut = dataclasses.replace(Tiles(), projection=ProjectionTile(64, 128, columns))
    step = next(one for one in launches(cut, overlapped=True, projected=True) if one.step == "projection")
    before, _ = re.split("HGMMA", machine_code(step), maxsplit=1)
    assert len(re.findall(r"LDG\.", before)) == 4 + 8 + 8 + columns // 16 + 1
    assert "HGMMA" in machine_code(step).split("LDG.")[-1], "none after the first product"


def loads_before_a_sum(launch):
    """How many loads follow the wait for the kernel before and come before an addition."""
    _, after = machine_code(launch).split("ACQBULK", 1)
    return len(re.findall(r"LDG\.", after.split("FADD", 1)[0]))


def machine_code(launch):
    """A launch's kernel for compute capability 9.0, as the disassembler that Triton brings shows it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as compiled:
        compiled.write(resources.compile_for(launch, 90).asm["cubin"])
        compiled.flush()
        command = [triton.knobs.nvidia.nvdisasm.path, "-c", compiled.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("batch", [1, 32])
def test_products_of_fp8_are_hopper_s_and_added_in_fp32_after_each_block(batch):
    for launch in launches(batch=batch, precision="fp8", overlapped=True):
        if launch.step not in PRODUCTS - {"head"}:
            continue
        ptx = resources.compile_for(launch, 90).asm["ptx"]
        assert set(re.findall(r"wgmma\.mma_async\S*\.(e4m3\.e4m3|f16\.f16)", ptx)) == {"e4m3.e4m3"}, launch.step
        _, *after = re.split(r"wgmma\.mma_async", ptx)
        between, added, _ = after[-1].partition("add.f32")
        assert added and "wgmma.wait_group.sync.aligned 0" in between, launch.step
        assert len(after) == launch.arguments["BLOCK_INNER"] // 32, "all of a block, the first of them onto zero"


def test_launches_are_compiled_beside_each_other_and_then_known(monkeypatch):
    """The driver is a double; Triton's compiler and its cache of a device are real."""
    card = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
    )
    monkeypatch.setattr(driver, "_active", card)
    monkeypatch.setattr(product.product, "device_caches", defaultdict(product.product.create_binder))
    module, cut = tuner.module(), defaults(128, "fp8")
    encoder = Encoder(weights("fp8"), 1, 128, cut, overlapped=True)
    tiles = module.tried(encoder, "out")[:4]
    module.compile_beside([module.with_tiles(encoder, tile) for tile in tiles])
    known = product.product.device_caches[0][0]
    assert len(known) == 4 + len(PRODUCTS - {"out"}) and all(one.asm["cubin"] for one in known.values())


def test_a_tile_that_is_too_large_is_seen():
    """Shared memory of all stages, and the sums that a thread holds: more than a program can have."""
    large = ProductTile(128, 128, 128, stages=4)
    up = next(one for one in launches(dataclasses.replace(Tiles(), up=large)) if one.step == "up")
    assert not resources.resources(up).fits(90) and resources.resources(up).shared > resources.SHARED_LIMIT[90]
    # Less than a block: nothing is loaded ahead, all is held at once.
    inner = {"INNER": 64, "X_ROW": 64, "SPAN": 128, "EXACT": False}
    held = resources.resources(dataclasses.replace(up, arguments={**up.arguments, **inner}))
    assert held.spilled and not held.fits(90)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_defaults_of_a_decode_step_fit_and_wait_before_they_write(batch):
    """Of GPT-2 Medium's sizes: weights lie in registers, so that none may spill."""
    weights = plain_decoder.random(1, 1024, 16, 1000, 256)
    cache = [tuple(torch.zeros(batch, 16, 256, 64).half() for _ in range(2))]
    token = torch.zeros(batch, 1, dtype=torch.int64)
    for launch in Decoder(weights, cache, token, decoder_tiles.defaults(batch, 256, 16), overlapped=True).launches():
        taken = resources.resources(launch)
        assert taken.fits(90), f"{launch.step}: {taken}"
        before, wait, _ = resources.compile_for(launch, 90).asm["ptx"].partition("griddepcontrol.wait")
        assert bool(wait) == (launch.step != "token") and (not wait or "st.global" not in before), launch.step


def test_the_persistent_kernel_fits_and_has_a_barrier_after_each_step():
    encoder = PersistentEncoder(weights("fp16"), 1, 128, PERSISTENT, programs=132)
    launch = encoder.launches(*families.request(1, 128))[0]
    taken, compiled = resources.resources(launch), resources.compile_for(launch, 90)
    assert taken.fits(90) and taken.instructions == "wgmma", taken
    assert compiled.metadata.launch_cooperative_grid
    ptx = compiled.asm["ptx"]
    places = 1 + len(STEPS)  # after the embedding, and after each step of the loop over layers
    assert len(re.findall(r"atom\.global\.gpu\.release\.add\.u64", ptx)) == places
    assert len(re.findall(r"ld\.global\.gpu\.acquire\.b64", ptx)) == places
    before, _ = ptx.split("gpu.release.add", 1)
    assert "prefetch.global.L2" in before, "the first weights are asked for before the first barrier"
