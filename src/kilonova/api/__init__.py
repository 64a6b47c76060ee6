"""HTTP only: parse, authenticate, validate, call `kilonova.cloud`, render. Decides nothing about clouds."""
