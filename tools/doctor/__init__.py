"""python -m tools doctor RECIPE: whether this machine can run a recipe, line by line, before anything is built."""
