"""The compiled kernel, which is optional: without a compiler, everything works in plain torch."""

from glob import glob

from setuptools import Extension, setup

# It is no module of Python, but a library that `pixelcnn.common.kernel` opens, and so the same for all versions.
KERNEL = Extension(
    "pixelcnn.common._kernel",
    sorted(glob("kernel/*.c")),
    depends=sorted(glob("kernel/*.h")),
    extra_compile_args=["-std=gnu11", "-O3", "-fvisibility=hidden", "-g0"],
    optional=True,
    py_limited_api=True,
)
setup(ext_modules=[KERNEL], options={"bdist_wheel": {"py_limited_api": "cp311"}})
