"""Check what is inside the wheel of a folder: `python tests/check_wheel.py dist` (run by `make wheel`)."""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def problems(wheel: Path) -> list[str]:
    """Return what is missing from the wheel and what does not belong there."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        entry_points = next((name for name in names if name.endswith(".dist-info/entry_points.txt")), None)
        scripts = archive.read(entry_points).decode() if entry_points else ""
        licensed = b"License-Expression: Apache-2.0" in archive.read(metadata)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hf_noise_al").rglob("*.py")}
    recipes = {f"hf_noise_al/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.yaml")}
    found = [f"missing: {name}" for name in sorted(modules | recipes | {"hf_noise_al/py.typed"}) if name not in names]
    dist_info = metadata.split("/")[0]
    for name in sorted(names):
        top, suffix = name.split("/")[0], Path(name).suffix
        if top not in {"hf_noise_al", dist_info}:
            found.append(f"outside the package: {name}")
        if suffix in {".pyc", ".safetensors", ".parquet"}:
            found.append(f"does not belong in a wheel: {name}")
    if "hf-noise-al = hf_noise_al.commands.main:main" not in scripts:
        found.append("missing: the command hf-noise-al")
    if not licensed:
        found.append("missing: the licence in the metadata")
    if not recipes:
        found.append("missing: any recipe to ship")
    return found


def main(folder: str) -> int:
    """Print the verdict on the only wheel in the folder."""
    wheels = sorted(Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        print(f"expected one wheel in {folder}, found {len(wheels)}")
        return 1
    found = problems(wheels[0])
    print("\n".join(found) or f"{wheels[0].name}: contents are right")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
