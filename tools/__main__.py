"""python -m tools COMMAND: what a person calls by name."""

from common.environment import enter_light

enter_light()

import json  # noqa: E402
import sys  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402

from common import cli, recipe  # noqa: E402
from common.errors import EXIT_FAILED, UserError, did_you_mean  # noqa: E402
from tools import copying, listing  # noqa: E402
from tools.doctor import command as doctoring  # noqa: E402
from tools.generated import documents  # noqa: E402
from tools.lint import run  # noqa: E402
from tools.lint.tree import Tree  # noqa: E402
from tools.onboarding import conformance, platform_file  # noqa: E402
from tools.planning import command as planning  # noqa: E402

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(metavar="[recipes|platforms]", help="One of the two. [default: both]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recipes with presets, memory and last results; platforms with vendor, memory and tier."""
    kinds = ("recipes", "platforms")
    if what is not None and what not in kinds:
        raise UserError(
            "tools list knows no such thing", found=what, expected=" or ".join(kinds), hint=did_you_mean(what, kinds)
        )
    recipes = listing.recipes() if what in (None, "recipes") else []
    platforms = listing.platforms() if what in (None, "platforms") else []
    if as_json:
        both = {"recipes": recipes, "platforms": platforms}
        print(json.dumps(both if what is None else both[what], indent=2, ensure_ascii=False))
        return
    out = listing.console()
    listing.show_recipes(recipes, out)
    if platforms:
        listing.show_platforms(platforms, out)


app.command()(planning.plan)
app.command()(doctoring.doctor)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new recipe's name: its folder under recipes/.")],
    parent: Annotated[str, typer.Option("--from", metavar="RECIPE", help="The recipe that is copied.")],
) -> None:
    """Copy a recipe under a new name; its run.sh, tests and pages work at once."""
    rewritten = copying.new(name, parent)
    print(f"recipes/{name}, from {parent}")
    say(rewritten)
    print(f"bash recipes/{name}/run.sh\nbash tools/test.sh -s test-{name}\npython -m tools diff {name}")


@app.command()
def diff(recipe_folder: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe that was copied.")]) -> None:
    """What differs from the recipe it was copied from, as that is today; what `tools new` changed does not count."""
    different = copying.diff(recipe_folder)
    print(different, end="")
    if not different:
        print("nothing differs from the parent", file=sys.stderr)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="A run directory, RECIPE/PRESET, or RECIPE.")],
    as_json: Json = False,
) -> None:
    """One run's report, or several runs side by side; runs need not be finished. Nothing is written."""
    from tools import reports  # the plots' library is slow to import

    found = reports.summaries(runs)
    if as_json:
        print(json.dumps([json.loads(each.model_dump_json()) for each in found], indent=2, ensure_ascii=False))
    else:
        print(reports.one(found[0]) if len(found) == 1 else reports.side_by_side(found))


@app.command()
def onboard(
    name: Annotated[str, typer.Argument(metavar="PLATFORM", help="The id of the platform, new or there already.")],
    like: Annotated[str, typer.Option(metavar="PLATFORM", help="The platform it is most like.")] = "cpu",
    recipe_name: Annotated[
        str, typer.Option("--recipe", metavar="RECIPE", help="Whose environment, framework and smoke run prove it.")
    ] = "fsdp_qlora_70b",
    only_file: Annotated[bool, typer.Option("--only-file", help="Write the platform's file, and run nothing.")] = False,
) -> int:
    """Write a platform's file, test this machine as one, say which tier that proves. Status 1 below verified."""
    written = platform_file.add(name, like)
    folder = recipe.find(recipe_name)
    written += platform_file.declare(folder, name, like)
    written += documents.write(Tree(), lambda _: True) if written else []
    say(written)
    if only_file:
        return 0
    result, log = conformance.measure(name, folder, lambda text: print(text, file=sys.stderr))
    say(conformance.write(result, log))
    print(conformance.as_markdown(result))
    print(f"tier: {result.tier}")
    if result.tier != "declared":
        log_file = f"docs/logs/{folder.name}_{name}.txt"
        print(f"Set it in common/platforms/{name}.yaml and, with log: {log_file}, in recipes/{folder.name}/recipe.yaml")
    return 0 if result.tier == "verified" else EXIT_FAILED


@app.command()
def lint(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Report only what is found there.")
    ] = None,
    as_json: Json = False,
    fix: Annotated[bool, typer.Option("--fix", help="Put right what can be: generated parts.")] = False,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", metavar="N", help="Only this rule, L003 or 3. Repeatable.")
    ] = None,
) -> int:
    """Check the rules of the house; docs/lints.md explains each. Exit status 1 when something is found."""
    tree = Tree()
    rules, within = run.chosen(rule or ()), run.within(tree, paths or ())
    if fix:
        for chosen in rules:
            for file in chosen.fix(tree, within) if chosen.fix else ():
                print(f"rewritten: {file.relative_to(tree.root)}", file=sys.stderr)
    found = run.find(tree, rules, within)
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False))
    else:
        for each in found:
            print("\n".join(each.lines()))
        if found:
            print(f"{len(found)} found; docs/lints.md says why each rule is there", file=sys.stderr)
    return EXIT_FAILED if found else 0


@app.command()
def schema() -> None:
    """Write the JSON Schemas of recipe.yaml and platform.yaml to docs/schema/, for editors."""
    say(documents.write(Tree(), lambda document: document.schema))


@app.command()
def readme() -> None:
    """Write the generated parts of README files and docs."""
    say(documents.write(Tree(), lambda document: not document.schema))


def say(written: list[Path]) -> None:
    for file in written:
        print(f"rewritten: {file.relative_to(Tree().root)}", file=sys.stderr)
    if not written:
        print("everything was up to date", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.call_app(app))
