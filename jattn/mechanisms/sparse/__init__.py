"""Mechanisms that look at few keys: near ones, chosen ones, or those that a structure allows."""
