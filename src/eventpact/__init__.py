"""Domain events behind one interface, dispatched by implementations that are proven interchangeable."""
