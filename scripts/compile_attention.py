"""What the attention kernels become on GPUs that need not be there: registers, spills, shared memory.

Every shape class is compiled by Triton and the assembler in its wheel, in a second or so each:

    python scripts/compile_attention.py --arch 90 --dtype bf16 --dim 64
    python scripts/compile_attention.py --arch 80 90 100 --kernel forward_tile --dim 64 80

The exit status is 1 if a kernel spills more than its tile allows or takes too much shared memory, if it uses
no tensor cores, or none of Hopper's own where a tile fills them. Needs Triton, but not PyTorch.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

# Interpreted kernels can't be compiled, and Triton decides when the kernels are imported.
os.environ["TRITON_INTERPRET"] = "0"

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from maskpre.ops.attention_triton import backward_loop, backward_tile, forward
from maskpre.ops.attention_triton.choices import Kernel, Tile, choose, longest_tile, split_head

BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
BITS = {"fp16": 16, "bf16": 16, "fp32": 32}
PRODUCTS = ("tcgen05.mma", "wgmma.mma_async", "mma.sync")
KERNELS: dict[str, Any] = {
    "forward_tile": forward.forward_tile,
    "forward_loop": forward.forward_loop,
    "backward_tile": backward_tile.backward_tile,
    "backward_queries": backward_loop.backward_queries,
    "backward_keys": backward_loop.backward_keys,
}
FEATURES: dict[str, frozenset[str]] = {
    "plain": frozenset(),
    "ragged": frozenset({"cu_q", "cu_k"}),
    "windows": frozenset({"group_q", "group_k", "table", "code_q", "code_k", "partial", "shared"}),
    "visible": frozenset({"cu_q", "cu_k", "table", "code_q", "code_k", "partial"}),
}
OPTIONAL = frozenset().union(*FEATURES.values())
INTEGERS = {"cu_q", "cu_k", "group_q", "group_k", "code_q", "code_k"}
WIDE = {"lse", "delta", "table", "partial"}
TOKENS = {"q", "k", "v", "out", "grad_out", "dq", "dk", "dv"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kernel for one kind of call."""

    kernel: Kernel
    arch: int
    dtype: str
    dim: int
    longest: int
    features: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a variant compiled to: per thread registers and spilled bytes, per program shared bytes."""

    registers: int
    spill: int
    shared: int
    products: str


def source(variant: Variant, num_heads: int = 12) -> tuple[ASTSource, dict[str, int]]:
    """The variant's kernel with the types of its arguments, and the compiler's options."""
    present = FEATURES[variant.features]
    tile = choose_tile(variant)
    main, tail = split_head(variant.dim)
    constants: dict[str, Any] = {
        "SHARED_Q": "shared" in present,
        "SHARED_K": "shared" in present,
        "SCALE": variant.dim**-0.5,
        "D": variant.dim,
        "MAIN": main,
        "TAIL": tail,
        "BLOCK_Q": tile.block_q,
        "BLOCK_K": tile.block_k,
        "UP": False,
    }
    function = KERNELS[variant.kernel]
    types, attributes = {}, {}
    for index, name in enumerate(function.arg_names):
        if name in constants:
            types[name] = "constexpr"
        elif name in OPTIONAL and name not in present:
            types[name], constants[name] = "constexpr", None
        elif name in INTEGERS | WIDE | TOKENS:
            types[name] = "*i32" if name in INTEGERS else "*fp32" if name in WIDE else f"*{variant.dtype}"
            attributes[index,] = [["tt.divisibility", 16]]
        else:
            types[name] = "i32"
            if name.endswith(("_stride", "_head")) and variant.dim % 8 == 0:
                attributes[index,] = [["tt.divisibility", 16]]
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    return ASTSource(function, types, constants, attributes), options


def choose_tile(variant: Variant) -> Tile:
    """The tile that a call of this kind would take."""
    return choose(
        variant.kernel,
        element_bits=BITS[variant.dtype],
        width=sum(split_head(variant.dim)),
        max_q=variant.longest,
        max_k=variant.longest,
        has_table="table" in FEATURES[variant.features],
    )


def compile_variant(variant: Variant) -> Report:
    """Compile a variant and read what the assembler says about it."""
    kernel, options = source(variant)
    compiled = triton.compile(kernel, target=GPUTarget("cuda", variant.arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = dump("--dump-resource-usage", file.name)
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return Report(
        registers=found["REG"],
        spill=found["STACK"] + found["LOCAL"],
        shared=compiled.metadata.shared,
        products=next((name for name in PRODUCTS if name in compiled.asm["ptx"]), "fma"),
    )


def dump(option: str, path: str) -> str:
    """Output of the wheel's cuobjdump."""
    command = [str(BINARIES / "cuobjdump"), option, path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def complaint(variant: Variant, report: Report, shared_bytes: int) -> str:
    """What is wrong with a compiled variant; empty if nothing is."""
    tile = choose_tile(variant)
    if report.spill > tile.spill:
        return f"spills {report.spill} bytes, {tile.spill} are allowed"
    if report.shared > shared_bytes:
        return f"takes {report.shared} bytes of shared memory, {shared_bytes} are allowed"
    if BITS[variant.dtype] == 16 and report.products == "fma":
        return "uses no tensor cores"
    fills = min(tile.block_q, tile.block_k) >= 64
    if BITS[variant.dtype] == 16 and variant.arch == 90 and fills and report.products != "wgmma.mma_async":
        return f"multiplies with {report.products} instead of wgmma.mma_async"
    return ""


def shipped(args: argparse.Namespace) -> list[Variant]:
    """All variants of the kernels, sizes and features asked for."""
    asked = itertools.product(args.kernel, args.arch, args.dtype, args.dim, args.features)
    return [
        Variant(kernel=k, arch=a, dtype=t, dim=d, features=f, longest=length)
        for k, a, t, d, f in asked
        for length in (
            [n for n in args.longest if n <= longest_tile(BITS[t])] if k.endswith("_tile") else [256]
        )
    ]


def main() -> int:
    """Compile what the command line asks for and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", nargs="*", default=get_args(Kernel))
    parser.add_argument("--arch", nargs="*", type=int, default=[90])
    parser.add_argument("--dtype", nargs="*", default=["bf16"])
    parser.add_argument("--dim", nargs="*", type=int, default=[32, 64, 80, 88, 128])
    parser.add_argument("--features", nargs="*", default=["plain", "windows", "visible"])
    parser.add_argument("--longest", nargs="*", type=int, default=[64])
    parser.add_argument("--shared-bytes", type=int, default=100 * 1024)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    variants, bad = shipped(args), 0
    with ProcessPoolExecutor(args.jobs) as pool:
        for variant, report in zip(variants, pool.map(compile_variant, variants), strict=True):
            wrong = complaint(variant, report, args.shared_bytes)
            bad += bool(wrong)
            print(line(variant, report), wrong, flush=True)
    print(f"{len(variants)} compiled, {bad} not as they must be, Triton {triton.__version__}")
    return int(bad > 0)


def line(variant: Variant, report: Report) -> str:
    """A variant, its tile and its report in columns."""
    tile = choose_tile(variant)
    shape = f"{variant.dtype} d{variant.dim} {variant.features}"
    cut = f"{tile.block_q}x{tile.block_k}, {tile.num_warps} warps, {tile.num_stages} stages"
    used = f"{report.registers} registers, {report.spill} B spilled, {report.shared} B shared"
    return f"sm_{variant.arch} {variant.kernel:16} {shape:20} {cut:26} {used}, {report.products}"


if __name__ == "__main__":
    sys.exit(main())
