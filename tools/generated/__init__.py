"""What is written from recipe.yaml, platform.yaml, the schemas and the rules: tables, commands, pages."""
