"""docs/lints.md: every rule with its reason and examples."""

from __future__ import annotations

from collections.abc import Iterable

from tools.lint.rule import Rule


def page(rules: Iterable[Rule]) -> str:
    return "\n\n".join(section(rule) for rule in rules)


def section(rule: Rule) -> str:
    return f"## {rule.id}: {rule.summary}\n\n{rule.why}\n\nNot so:\n\n{rule.bad}\n\nSo:\n\n{rule.good}"
