"""Finite work: a task is a program from input folders to an output folder. It knows neither kernel nor store."""
