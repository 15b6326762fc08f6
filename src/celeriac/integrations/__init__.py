"""Traces for OpenTelemetry and Sentry, each imported only by programs that use it."""
