"""The outbox: store, relay, reader, deliveries, settlements, liveness."""
