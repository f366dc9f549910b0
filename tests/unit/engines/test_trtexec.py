"""The command that builds the same engine with NVIDIA's own tool."""

from ceilings.engines import trtexec
from ceilings.engines.profiles import Profile

PLAIN = {
    "tf32": False,
    "optimization_level": 3,
    "workspace_mb": None,
    "version_compatible": False,
    "hardware_compatibility": "none",
    "timing_cache": None,
    "capability": None,
}


def test_every_flag_is_explicit():
    settings = {
        **PLAIN,
        "tf32": True,
        "workspace_mb": 512,
        "version_compatible": True,
        "hardware_compatibility": "ampere-plus",
        "timing_cache": "timing.cache",
    }
    profiles = [Profile.static(1, 128), Profile((1, 8, 32), (16, 128, 512))]
    assert trtexec.command("tensorrt10", "fp32.onnx", "x.engine", profiles, **settings) == (
        "trtexec --onnx=fp32.onnx --stronglyTyped"
        " --profile=0 --minShapes=input_ids:1x128,attention_mask:1x128 --optShapes=input_ids:1x128,attention_mask:1x128"
        " --maxShapes=input_ids:1x128,attention_mask:1x128"
        " --profile=1 --minShapes=input_ids:1x16,attention_mask:1x16 --optShapes=input_ids:8x128,attention_mask:8x128"
        " --maxShapes=input_ids:32x512,attention_mask:32x512"
        " --builderOptimizationLevel=3 --memPoolSize=workspace:512M --versionCompatible"
        " --hardwareCompatibilityLevel=ampere+ --timingCacheFile=timing.cache"
        " --profilingVerbosity=detailed --skipInference --saveEngine=x.engine"
    )


def test_rtx_has_a_tool_of_its_own_name():
    assert trtexec.command("tensorrt-rtx", "a b.onnx", "x.engine", [], **{**PLAIN, "capability": (12, 0)}) == (
        "tensorrt_rtx '--onnx=a b.onnx' --builderOptimizationLevel=3 --noTF32 --computeCapabilities=120"
        " --profilingVerbosity=detailed --skipInference --saveEngine=x.engine"
    )
