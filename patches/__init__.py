"""Corrections to frameworks. Each states its version range, its reason and where upstream stands.

A patch is a module with VERSIONS, REASON, UPSTREAM and `apply()`. Recipes call `patches.apply(...)`;
a version outside the range is an error, because a patch that meets other code than it was written
for is worse than none.
"""

from __future__ import annotations

import importlib
import importlib.metadata

from packaging.specifiers import SpecifierSet

from common.errors import UserError


def apply(name: str) -> None:
    """Apply the patch `patches.<framework>.<module>`, named "framework.module".

    Raises UserError when the installed version is outside the patch's range.
    """
    module = importlib.import_module(f"patches.{name}")
    distribution = name.split(".")[0]
    version = importlib.metadata.version(distribution)
    if version not in SpecifierSet(module.VERSIONS):
        raise UserError(
            f"patch {name} does not know this version of {distribution}",
            found=version,
            expected=module.VERSIONS,
            hint="install the pinned version, or check the patch against the new code and widen its range",
        )
    module.apply()
