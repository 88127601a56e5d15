"""What the realm says to a NATS server: which subjects there are, and who may use which (sans-IO)."""
