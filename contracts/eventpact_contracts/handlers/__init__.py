"""HandlerContract: what at-least-once delivery asks of a handler, as laws H1 to H3."""
