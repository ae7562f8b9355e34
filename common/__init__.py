"""What all recipes share. Imports no recipe, and no framework at module level."""
