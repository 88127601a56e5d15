"""The control channel over a broker: NATS servers that many sites reach."""
