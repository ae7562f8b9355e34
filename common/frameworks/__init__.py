"""What several recipes of one framework share. Each folder is imported in that framework's environments only."""
