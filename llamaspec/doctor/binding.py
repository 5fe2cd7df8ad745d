"""llama-cpp-python: whether it works, for what it was built, and what of the processor it leaves unused."""

import platform
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from llamaspec.doctor.build import BINDING, Build, BuildTrouble, requirements, wanted_binding
from llamaspec.doctor.check import Finding, Visit, attention, broken, ok
from llamaspec.native.devices import (
    CUDA,
    METAL,
    ROCM,
    VULKAN,
    GpuBuild,
    find_gpu,
    physical_cores,
    reinstall_command,
    this_machine,
)

# ggml's word for a feature: the processor's flags that stand for it, as py-cpuinfo has them. All of a tuple
# are needed: ggml uses the five parts of AVX-512 together.
_FLAGS = {
    "SSE3": (("pni",), ("sse3",)),
    "SSSE3": (("ssse3",),),
    "AVX": (("avx",),),
    "AVX2": (("avx2",),),
    "AVX_VNNI": (("avx_vnni",),),
    "F16C": (("f16c",),),
    "FMA": (("fma",),),
    "BMI2": (("bmi2",),),
    "AVX512": (("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"),),
    "AVX512_VBMI": (("avx512vbmi",), ("avx512_vbmi",)),
    "AVX512_VNNI": (("avx512_vnni",), ("avx512vnni",)),
    "AVX512_BF16": (("avx512_bf16",),),
    "AMX_INT8": (("amx_tile", "amx_int8"),),
    "NEON": (("asimd",), ("neon",)),
    "FP16_VA": (("asimdhp",),),
    "DOTPROD": (("asimddp",),),
    "MATMUL_INT8": (("i8mm",),),
    "SVE": (("sve",),),
    "SME": (("sme",),),
    "VSX": (("vsx",),),
    "VXE": (("vxe",),),
}

_BACKENDS = {build.backend: build for build in (CUDA, METAL, ROCM, VULKAN)}
_NATIVE = GpuBuild("this processor", "-DGGML_NATIVE=on", "a C++ compiler")


@dataclass(frozen=True, slots=True)
class Processor:
    """`flags` are empty where the system does not tell."""

    name: str
    flags: frozenset[str]


def run(visit: Visit) -> Iterator[Finding]:
    build = visit.build
    if isinstance(build, BuildTrouble):
        yield _unusable(build)
        return
    wanted = requirements()[BINDING]
    if not wanted.specifier.contains(build.version, prereleases=True):
        yield broken(
            f"{BINDING} {build.version} is installed, and this llamaspec is made for {wanted.specifier}.",
            f"Install the one that fits:\n{rebuild_command(build)}",
        )
        return
    processor = read_processor()
    missed = missed_features(processor.flags, build.features)
    unused = ", ".join(missed) or ("nothing" if processor.flags else "(this system does not tell)")
    details = (
        f"processor: {processor.name}, {physical_cores()} cores for llama.cpp",
        f"backends: {', '.join(build.backends)}",
        f"of the processor it uses: {', '.join(sorted(build.features)) or 'nothing that it names'}",
        f"and does not use: {unused}",
    )
    if missed:
        yield attention(
            f"{BINDING} {build.version} was not built for all that this processor has: "
            f"{', '.join(missed)} {'is' if len(missed) == 1 else 'are'} not used.",
            f"Build it again here (needs {_NATIVE.needs}):\n{rebuild_command(build)}",
            *details,
        )
    else:
        yield ok(f"{BINDING} {build.version}, built for {', '.join(build.backends)}.", *details)


def _unusable(trouble: BuildTrouble) -> Finding:
    command = rebuild_command(None)
    if not trouble.installed:
        return broken(f"{BINDING} is not installed.", f"Install it (needs a C++ compiler):\n{command}")
    if trouble.for_another_processor:
        return broken(
            f"{BINDING} ends with an illegal instruction: it was built for another processor.",
            f"Build it again here (needs a C++ compiler):\n{command}",
            *trouble.log,
        )
    return broken(
        f"{BINDING} is installed, and can't be used: {trouble.reason.removesuffix('.')}.",
        f"Build it again (needs a C++ compiler):\n{command}",
        *trouble.log,
    )


def missed_features(flags: Collection[str], used: Collection[str]) -> list[str]:
    """What the processor has and a build does not use, in ggml's words."""
    return [
        feature
        for feature, ways in _FLAGS.items()
        if feature not in used and any(set(way) <= set(flags) for way in ways)
    ]


def read_processor() -> Processor:
    """Takes a second or two."""
    import cpuinfo

    known = cpuinfo.get_cpu_info()
    name = known.get("brand_raw") or platform.processor() or "unknown"
    return Processor(name, frozenset(known.get("flags", ())))


def rebuild_command(build: Build | None) -> str:
    """The binding anew for this processor, and for the GPUs that the build is for, or that are here."""
    here = find_gpu(this_machine())
    backends = [_BACKENDS[name] for name in build.backends if name in _BACKENDS] if build else []
    wanted = backends or ([here] if here else [])
    switches = " ".join([_NATIVE.switch, *(each.switch for each in wanted)])
    made = GpuBuild(_NATIVE.backend, switches, _NATIVE.needs)
    return reinstall_command(made, platform.system(), sys.executable, wanted_binding())
