"""Types that all packages share. Imports no other package."""
