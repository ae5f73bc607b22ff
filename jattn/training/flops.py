"""Floating-point operations of a program, under the name that training knows them by."""

from jattn.flops import flops as flops
