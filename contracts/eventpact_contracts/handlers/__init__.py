"""HandlerContract: the demands of at-least-once delivery on a handler, as laws H1 to H3."""
