"""What people look at: the report, Pareto fronts, web pages."""
