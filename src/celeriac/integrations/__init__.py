"""Traces for OpenTelemetry and Sentry, each imported by who wants it."""
