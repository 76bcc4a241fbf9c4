"""Celery: app, queues, messages, publisher, task, consumer, embedded broker."""
