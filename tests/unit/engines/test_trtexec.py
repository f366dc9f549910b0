"""The command that builds the same engine with NVIDIA's own tool."""

from ceilings.engines import trtexec
from ceilings.engines.profiles import Profile
from ceilings.workload.shape import Shape

TEXT = {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]}
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
    profiles = [Profile.static(Shape.parse("b1-s128")), Profile({"batch": (1, 8, 32), "sequence": (16, 128, 512)})]
    assert trtexec.command("tensorrt10", "fp32.onnx", "x.engine", TEXT, profiles, **settings) == (
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
    fixed = {name: [1, 128] for name in TEXT}
    profiles = [Profile.static(Shape.parse("b1-s128"))]
    settings = {**PLAIN, "capability": (12, 0)}
    assert trtexec.command("tensorrt-rtx", "a b.onnx", "x.engine", fixed, profiles, **settings) == (
        "tensorrt_rtx '--onnx=a b.onnx' --builderOptimizationLevel=3 --noTF32 --computeCapabilities=120"
        " --profilingVerbosity=detailed --skipInference --saveEngine=x.engine"
    )


def test_only_dynamic_inputs_have_shapes():
    inputs = {"pixel_values": ["batch", 3, 224, 224], "scale": [1]}
    command = trtexec.command(
        "tensorrt11", "g.onnx", "x.engine", inputs, [Profile.static(Shape.parse("b4-i224"))], **PLAIN
    )
    assert " --minShapes=pixel_values:4x3x224x224 --optShapes=pixel_values:4x3x224x224 " in command
    assert "scale" not in command
