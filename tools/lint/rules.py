"""All rules, in the order of their numbers."""

from __future__ import annotations

from tools.lint import branches, generated, imports, patches, recipes, schemas, settings, sizes, unsafe
from tools.lint.rule import Rule

RULES: tuple[Rule, ...] = (
    schemas.RULE,
    imports.RULE,
    branches.RULE,
    settings.RULE,
    recipes.DEFECTS,
    recipes.RUN_SCRIPTS,
    generated.RULE,
    patches.RULE,
    unsafe.RULE,
    sizes.RULE,
    recipes.TIERS_RULE,
    recipes.NAMES,
    schemas.PATTERNS,
)
