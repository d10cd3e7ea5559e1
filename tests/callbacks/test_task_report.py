"""Being written by the helper of tests/tasks/small.py."""
