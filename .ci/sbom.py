"""Write DIST/cdc-audit-VERSION.cdx.json: what an installation of the package consists of, as CycloneDX.

Taken from the installed packages' own metadata: the package with what it needs, and what that needs. Development tools are
not in it.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

VERSION = SchemaVersion.V1_6


def component(name: str, kind: ComponentType = ComponentType.LIBRARY) -> Component:
    """One installed package."""
    found = distribution(name)
    words = found.metadata.get("License-Expression")
    return Component(
        type=kind,
        name=name,
        version=found.version,
        bom_ref=f"{name}=={found.version}",
        purl=PackageURL("pypi", name=name, version=found.version),
        licenses=[LicenseExpression(words)] if words else [],
    )


def needs(name: str, extras: set[str]) -> dict[str, set[str]]:
    """What a package needs on this platform with these of its extras, each with the extras that are wanted of it."""
    wanted: dict[str, set[str]] = {}
    for one in map(Requirement, distribution(name).requires or []):
        if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            wanted.setdefault(canonicalize_name(one.name), set()).update(one.extras)
    return wanted


def bom(name: str, extras: set[str]) -> Bom:
    """The package and all that comes with it."""
    made = {name: component(name, ComponentType.APPLICATION)}
    result = Bom()
    result.metadata.component = made[name]
    open_ones = [(name, extras)]
    while open_ones:
        one, its_extras = open_ones.pop()
        wanted = needs(one, its_extras)
        for need, need_extras in wanted.items():
            if need not in made:
                made[need] = component(need)
                result.components.add(made[need])
                open_ones.append((need, need_extras))
        result.register_dependency(made[one], [made[need] for need in wanted])
    return result


def main(folder: Path) -> None:
    """Write the file; it is checked against CycloneDX's schema."""
    document = bom("cdc-audit", {"binary"})
    text = make_outputter(document, OutputFormat.JSON, VERSION).output_as_string(indent=2)
    problem = JsonStrictValidator(VERSION).validate_str(text)
    if problem is not None:
        sys.exit(f"sbom: not valid CycloneDX: {problem}")
    root = document.metadata.component
    assert root is not None
    path = folder / f"{root.name}-{root.version}.cdx.json"
    path.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
