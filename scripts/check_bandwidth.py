#!/usr/bin/env python3
"""Whether the bandwidth that rooflines stand on agrees with a measurement in C, after McCalpin's STREAM.

Compiles loops over arrays that no cache holds, with OpenMP, and measures with both in turns: `read` sums up
one array, `triad` is STREAM's a = b + 3 c, which counts three arrays; that the written one is read first as
well, where the processor does so, is not counted. Decoding is like `read`.

Usage: scripts/check_bandwidth.py [--threads N] [--rounds N]
"""

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

from llamaspec.bench.bandwidth import passes
from llamaspec.native.devices import physical_cores

ELEMENTS = 1 << 26  # doubles: 512 MiB an array
TOLERANCE = 0.15
SOURCE = r"""
#include <omp.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif
static double *a, *b, *c, total;
static long n;
int begin(long elements, int threads) {
    n = elements;
    omp_set_num_threads(threads);
    double **arrays[] = {&a, &b, &c};
    for (int i = 0; i < 3; i++) {
        if (!(*arrays[i] = aligned_alloc(1 << 21, n * sizeof(double)))) return 1;
#ifdef __linux__
        madvise(*arrays[i], n * sizeof(double), MADV_HUGEPAGE); /* as NumPy does */
#endif
    }
    #pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) { a[i] = 1.0; b[i] = 2.0; c[i] = 0.5; }
    return 0;
}
double read_once(void) {
    double sum = 0.0, start = omp_get_wtime();
    #pragma omp parallel for simd schedule(static) reduction(+ : sum)
    for (long i = 0; i < n; i++) sum += a[i];
    double seconds = omp_get_wtime() - start;
    total += sum;
    return n * sizeof(double) / seconds;
}
double triad_once(void) {
    double start = omp_get_wtime();
    #pragma omp parallel for simd schedule(static)
    for (long i = 0; i < n; i++) a[i] = b[i] + 3.0 * c[i];
    return 3 * n * sizeof(double) / (omp_get_wtime() - start);
}
"""


def compiled(folder: Path) -> ctypes.CDLL:
    """Raises FileNotFoundError without a compiler, CalledProcessError where it fails."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("neither gcc nor clang is there")
    source, library = folder / "stream.c", folder / "stream.so"
    source.write_text(SOURCE, encoding="utf-8")
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    loops = ctypes.CDLL(str(library))
    loops.begin.argtypes = [ctypes.c_long, ctypes.c_int]
    loops.read_once.restype = loops.triad_once.restype = ctypes.c_double
    return loops


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare our bandwidth with that of loops in C.")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    ours, theirs = list[float](), {"read": list[float](), "triad": list[float]()}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        loops = compiled(Path(folder))
        if loops.begin(ELEMENTS, options.threads):
            print("There is no memory for the arrays.", file=sys.stderr)
            return 1
        # Pass by pass: a machine that is shared gives twice as much in one second as in the next.
        for bandwidth in islice(passes(options.threads), options.rounds):
            ours.append(bandwidth)
            for name, measured in theirs.items():
                measured.append(getattr(loops, f"{name}_once")())
    print(f"llamaspec {shown(ours)} with {options.threads} threads")
    for name, measured in theirs.items():
        print(f"{name:9} {shown(measured)}, llamaspec {median(ours) / median(measured) - 1:+.1%}")
    return 0 if abs(median(ours) / median(theirs["read"]) - 1) <= TOLERANCE else 1


def shown(bandwidths: Sequence[float]) -> str:
    return f"{median(bandwidths) / 1e9:.1f} GB/s, at best {max(bandwidths) / 1e9:.1f}"


if __name__ == "__main__":
    sys.exit(main())
