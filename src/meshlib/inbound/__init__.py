"""Requests coming in: context taken over, registration, draining."""
