"""The tests as a package of their own: a package of this name that a dependency installs would otherwise be found first."""
