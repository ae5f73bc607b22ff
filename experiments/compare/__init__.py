"""Parts of the bake-off: equal models, tasks, costs, tables."""
