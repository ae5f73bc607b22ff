"""What the papers prove, as plain functions: closed forms, estimators, reduced dynamics."""
