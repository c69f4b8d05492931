"""The telemetry contract: OpenTelemetry metrics as OTLP over MQTT, and how a receiver reads them."""
