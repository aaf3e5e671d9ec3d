"""What a bundle for another machine carries, so that the engine can be built and tested there.

The device runs the very files of ``convexport.runtime`` that this machine would: they travel along.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import convexport
import convexport.runtime
from convexport.runtime.files import sha256_of
from convexport.runtime.trt_config import TrtOptions
from convexport.runtime.trt_device import SUMS
from convexport.runtime.trt_versions import generations

SCRIPT = "build_on_device.py"
README = "ON_DEVICE.md"

_SCRIPT = '''\
#!/usr/bin/env python3
"""Build this bundle's TensorRT engine here, and test it: python3 build_on_device.py"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = str(HERE / "lib")
# For the process that builds, too: it is another one, so that a crash can be told.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [LIBRARY, os.environ.get("PYTHONPATH")]))
sys.path.insert(0, LIBRARY)

from convexport.runtime.trt_device import main  # noqa: E402

sys.exit(main(HERE, sys.argv[1:]))
'''


def device_facts(options: TrtOptions, versions: str) -> dict[str, Any]:
    """For the manifest: what to build with, and which versions of TensorRT the graph is for.

    Args:
        versions: such as ``>=8.5.2,<8.6``.
    """
    return {"tensorrt": {"options": options.to_dict(), "versions": versions}}


def add_device_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Put the script, our runtime and a page for the person at the board beside the ONNX file.

    Args:
        manifest: with what ``device_facts`` gave.
    """
    (folder / SCRIPT).write_text(_SCRIPT, encoding="utf-8")
    (folder / SCRIPT).chmod(0o755)
    package = folder / "lib" / "convexport"
    for module, place in ((convexport, package), (convexport.runtime, package / "runtime")):
        place.mkdir(parents=True)
        (source,) = module.__path__
        names = ["__init__.py"] if module is convexport else ["*.py"]
        for path in (path for name in names for path in sorted(Path(source).glob(name))):
            shutil.copyfile(path, place / path.name)
    (folder / README).write_text(_readme(manifest), encoding="utf-8")


def write_sums(folder: Path) -> None:
    """Write ``SHA256SUMS`` over everything, the manifest too: the last file of a bundle."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SUMS]
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def trtexec_line(manifest: Mapping[str, Any]) -> str:
    """The same build by NVIDIA's own program, without the tests."""
    options = TrtOptions.from_dict(manifest["tensorrt"]["options"])
    name, shape = manifest["input"]["name"], manifest["input"]["shape"]
    sides = [f"{name}:{'x'.join(map(str, (size, *shape[1:])))}" for size in options.batch]
    profile = [
        f"--{kind}Shapes={side}" for kind, side in zip(("min", "opt", "max"), sides, strict=True)
    ]
    rows = generations(manifest["tensorrt"]["versions"])
    held = shlex.quote(",".join(f"{name}:fp32" for name in options.fp32_layers))
    words = {
        f"--onnx={manifest['model']}": True,
        "--saveEngine=engine.plan": True,
        " ".join(profile): isinstance(shape[0], str),
        "--stronglyTyped": options.typed,
        "--fp16": options.fp16,
        "--int8": options.int8,
        "--noTF32": not options.tf32,
        f"--memPoolSize=workspace:{options.workspace_mib}": options.workspace_mib is not None,
        f"--builderOptimizationLevel={options.level}": options.level is not None,
        # Where they are on unless told otherwise; from 10 on they are off.
        "--tacticSources=-CUDNN,-CUBLAS,-CUBLAS_LT": options.own_kernels
        and all(row.libraries for row in rows),
        "--preview=+disableExternalTacticSourcesForCore0805": options.own_kernels
        and all(row.core_libraries for row in rows),
        "--hardwareCompatibilityLevel=ampere+": options.hardware == "ampere_plus",
        "--hardwareCompatibilityLevel=sameComputeCapability": options.hardware
        == "same_compute_capability",
        "--versionCompatible": options.version_compatible,
        "--refit": options.refit,
        f"--useDLACore={options.dla} --allowGPUFallback": options.dla is not None,
        f"--precisionConstraints=obey --layerPrecisions={held} --layerOutputTypes={held}": bool(
            options.fp32_layers
        ),
        "--profilingVerbosity=detailed": True,
    }
    return " ".join(
        ["/usr/src/tensorrt/bin/trtexec", *(word for word, wanted in words.items() if wanted)]
    )


def _readme(manifest: Mapping[str, Any]) -> str:
    return f"""\
# {manifest["name"]} on the device

For TensorRT {manifest["tensorrt"]["versions"]}. It was not built or run on such a
device before; the script below does both, and says whether the result can be trusted.

1. Copy this whole directory to the device. `sha256sum -c {SUMS}` there tells whether it arrived.
2. Set the power mode and the clocks that you will use, such as `sudo nvpmodel -m 0` and
   `sudo jetson_clocks`, and close other programs: the build wants memory.
3. `python3 {SCRIPT}`. It needs Python 3.8 or later with numpy and tensorrt, which JetPack
   brings, takes minutes, and ends with `PASS`, or with `FAIL` and the reason.

The engine, its log and what was measured are then in `engine/`. An engine that was there before
stays until a new one has passed; of a build that failed the log is in `engine.failed/`.
An engine runs on this device, with this TensorRT, alone: after an update of JetPack run the script
again.

```python
import sys
sys.path.insert(0, "lib")
import convexport

engine = convexport.load(".")          # pip install pillow for engine.classify
```

The same build by NVIDIA's own program, without the tests:

```sh
{trtexec_line(manifest)}
```
"""
